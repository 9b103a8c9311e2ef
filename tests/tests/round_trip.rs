//! A disk that is sent arrives, octet for octet and hole for hole.

use rig::{Disk, Filesystem, Fs, Receiver, assert_same, holes, send_to, tools};

#[test]
fn a_disk_with_holes_on_both_sides_arrives_by_both_receivers() {
    let fs = Filesystem::new(Fs::Ext4, 1 << 30);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    Disk::empty(10 << 20).with(1 << 20, 1 << 20, 1).with(5 << 20, 4096, 2).make(&image);
    for receiver in Receiver::both() {
        for args in [&[][..], &["--hash"]] {
            let (sent, received) = send_to(&tools!(), args, &image, receiver, &dest);
            sent.ok();
            received.ok();
            assert_same(&image, &dest);
            assert_eq!(holes(&image), holes(&dest), "{receiver:?} {args:?}");
        }
    }
}
