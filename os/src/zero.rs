//! Detects zeros at memory bandwidth, and provides a buffer of zeros.

/// A buffer of zeros to send. It takes no memory, because it is never written.
pub static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// True if every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Blocks with data mostly have some in their first bytes, so this check saves the scan.
    let (head, _) = bytes.split_at(bytes.len().min(16));
    if head.iter().any(|&byte| byte != 0) {
        return false;
    }
    // The compiler turns the OR of a chunk into vector instructions. There is one branch per chunk.
    let chunks = bytes.chunks_exact(256);
    let tail = chunks.remainder();
    chunks.into_iter().all(|chunk| chunk.iter().fold(0, |or, &byte| or | byte) == 0)
        && tail.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_single_set_bit_is_detected() {
        for len in [0, 1, 15, 16, 17, 255, 256, 272, 273, 512, 4096, 5000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len} zeros");
            for at in 0..len {
                bytes[at] = 1 << (at % 8);
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
