//! Zeros: finding them at memory bandwidth, and having some at hand.

/// Zeros to be sent where nothing holds any. They take no memory as long as nobody writes them.
pub static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// True if every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Blocks that hold something mostly begin with it: one look saves the scan.
    let (head, _) = bytes.split_at(bytes.len().min(16));
    if head.iter().any(|&byte| byte != 0) {
        return false;
    }
    // Chunks whose OR the compiler turns into vector instructions; one branch a chunk.
    let chunks = bytes.chunks_exact(256);
    let tail = chunks.remainder();
    chunks.into_iter().all(|chunk| chunk.iter().fold(0, |or, &byte| or | byte) == 0)
        && tail.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_bit_anywhere_is_seen() {
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
