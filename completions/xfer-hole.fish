# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_xfer_hole_global_optspecs
    string join \n hash no-hash hash-interval= min-hole= classic since-snapshot= since-base= bitmap= base-digest= trust-base in-place target-is-zero discard no-sync direct delta remember no-resume read-back check-base no-clobber f/force mkpath chmod= chown= n/dry-run remote-path= e/rsh= P/port= i/identity= J/jump= o/ssh-option= F/ssh-config= C/compress 4/ipv4 6/ipv6 timeout= bwlimit= receiver= converse speaks= restrict= format= backing-format= snapshot= allow= no-backing U/force-share extents= v/verbose detect-zeroes= live reflink= progress= q/quiet print-digest print-receiver h/help V/version
end

function __fish_xfer_hole_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_xfer_hole_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_xfer_hole_using_subcommand
    set -l cmd (__fish_xfer_hole_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l hash-interval -d 'Set the interval of the checksums: a power of two from 4K to 16M bytes (default: 1M)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l min-hole -d 'Send holes shorter than SIZE bytes as data (default: 4K with checksums, else 1)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l since-snapshot -d 'Send only changes since an internal snapshot of the image' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l since-base -d 'Send only the data of the layers above FILE in the backing chain' -r -F
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l bitmap -d 'Send only the ranges that a persistent bitmap of the image marks as changed' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l base-digest -d 'Set the fingerprint of the base disk, which the receiver checks' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l chmod -d 'Set the permissions of the file to MODE, in octal' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l chown -d 'Set the owner of the file: USER, USER:GROUP or :GROUP' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l remote-path -d 'Run PROGRAM on the remote machine as xfer-hole or recv-hole' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s e -l rsh -d 'Connect with COMMAND (default: ssh)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s P -l port -d 'Connect to PORT (default: from the ssh configuration)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s i -l identity -d 'Log in with the private key in file KEY' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s J -l jump -d 'Connect through the host JUMP, or several separated by commas' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s o -l ssh-option -d 'Pass OPTION to ssh, as in ssh_config (repeatable)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s F -l ssh-config -d 'Read FILE as the ssh configuration (default: ~/.ssh/config)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l timeout -d 'Give up after TIME without data (seconds; m, h accepted; default: 60)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l bwlimit -d 'Limit bandwidth to RATE (bytes per second, with unit B, K, M or G)' -r
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l receiver -d 'Choose the receiver on the other machine (default: auto)' -r -f -a "auto\t'recv-hole if it is installed there, else recv-hole.sh'
binary\t'recv-hole, which must be installed there'
sh\t'recv-hole.sh, which is sent along and needs only a POSIX shell'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l speaks -d 'Exit with 0 if conversation VERSION is supported, else with 2 (for programs)' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l restrict -d 'Serve requests for images below DIR only, as the forced command of an ssh key' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l detect-zeroes -d 'Look for zeros in allocated data and send them as holes (default: on)' -r -f -a "on\t'Search in blocks of 4 KiB'
off\t'Trust the extents'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l reflink -d 'Share blocks between image and copy (default: auto)' -r -f -a "auto\t'Share blocks if the image is raw, no option requires a search for zeros, and the file system can clone'
always\t'Fail if blocks can\'t be shared'
never\t'Copy all data'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l progress -d 'Show progress (default: auto, or none for a stream on standard output)' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l hash -d 'Send SHA-256 checksums, which the receiver verifies (default: only to another machine)'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-hash -d 'Send no checksums to another machine (default: with checksums)'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l classic -d 'Write the 2014 stream format, in which truncation can\'t be detected'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l trust-base -d 'Skip the check that the target holds the base disk'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l in-place -d 'Update an existing file directly instead of writing DEST.part'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l target-is-zero -d 'Skip writing holes: the block device DEST already reads as zeros'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l discard -d 'Discard holes on the block device DEST instead of zeroing them'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-sync -d 'Skip waiting for stable storage (a crash may lose the old and the new disk)'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l direct -d 'Bypass the page cache with O_DIRECT on both machines'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l delta -d 'Send only the 64 KiB intervals that differ from DEST'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l remember -d 'Trust cached fingerprints of disks unchanged since their last transfer'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-resume -d 'Start over instead of resuming from DEST.part'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l read-back -d 'Read the stored disk back and check its checksums before reporting success'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l check-base -d 'Refuse an incremental stream that does not name its base disk'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-clobber -d 'Fail if DEST already exists'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s f -l force -d 'Write DEST even if it is in use or was made from another image'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l mkpath -d 'Create missing parent directories of DEST'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s n -l dry-run -d 'Check everything and print what would be done; write nothing'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s C -l compress -d 'Compress the connection with ssh'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l converse -d 'Read replies from standard input, for programs that hold both directions of a link'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l live -d 'Accept that the image changes while it is sent'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l print-digest -d 'Print the fingerprint of the disk on standard error'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l print-receiver -d 'Write recv-hole.sh, the receiver that needs only a POSIX shell, to standard output'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s V -l version -d 'Print version'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "map" -d 'Print the extents of an image: what is data, zero or a hole'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "info" -d 'Print the format, sizes, snapshots and backing files of an image'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "fold" -d 'Copy the data of a sparse raw file into its parent, the next file down a chain'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "prune" -d 'Punch holes into a sparse raw file where its child, the next file up a chain, has data'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "manifest" -d 'Print the manifest of a disk: its extents with checksums, without data'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "digest" -d 'Print the fingerprint of a disk'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "verify" -d 'Compare a disk with a manifest'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l output -d 'Set the output format' -r -f -a "human\t'A table for people'
json\t'JSON, with the field names of qemu-img'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l output -d 'Set the output format' -r -f -a "human\t'A table for people'
json\t'JSON, with the field names of qemu-img'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l format -d 'Set the format of both files' -r -f -a "auto\t'Raw; a file that looks like another image format is refused'
raw\t'Raw, whatever the content'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l progress -d 'Show progress' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s n -l dry-run -d 'Check everything and print what would be done; write nothing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l no-sync -d 'Skip waiting for stable storage; a crash soon after may lose changes'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s v -l verbose -d 'Print each step'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l format -d 'Set the format of both files' -r -f -a "auto\t'Raw; a file that looks like another image format is refused'
raw\t'Raw, whatever the content'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l progress -d 'Show progress' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s n -l dry-run -d 'Check everything and print what would be done; write nothing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l no-sync -d 'Skip waiting for stable storage; a crash soon after may lose changes'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s v -l verbose -d 'Print each step'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s o -l output -d 'The file to create or replace (default standard output)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l hash-interval -d 'Set the interval of the checksums: a power of two from 4K to 16M bytes (default: 1M)' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l min-hole -d 'Set the grain in which zeros are found: a power of two from 512 bytes to the interval (default: 4K)' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l progress -d 'Show progress (default: auto, or none for a manifest on standard output)' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l direct -d 'Bypass the page cache with O_DIRECT'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l hash-interval -d 'Set the interval of the checksums: a power of two from 4K to 16M bytes (default: 1M)' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l min-hole -d 'Set the grain in which zeros are found: a power of two from 512 bytes to the interval (default: 4K)' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l progress -d 'Show progress (default: auto, or none for a manifest on standard output)' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l direct -d 'Bypass the page cache with O_DIRECT'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l format -d 'Set the format of the image' -r -f -a "auto\t'Raw for a block device; detected from the content for a file'
raw\t'The file or device is the disk itself, whatever its content'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l backing-format -d 'Set the format of backing files that declare none (default: refuse them)' -r -f -a "raw\t'Raw: the file is the disk'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l snapshot -d 'Read an internal snapshot, in its own size, instead of the current state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l allow -d 'Allow backing files and data files below DIR (repeatable)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l extents -d 'Find the data of raw images by this method (default: seek, or scan where that is unsupported)' -r -f -a "seek\t'Use SEEK_DATA and SEEK_HOLE'
fiemap\t'Use FIEMAP'
scan\t'Read all data'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l progress -d 'Show progress (default: auto, or none for a manifest on standard output)' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l list -d 'Print only the ranges that differ: offset and length in bytes, one range per line'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l no-backing -d 'Refuse an image that needs a backing file or data file'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s U -l force-share -d 'Read an image even if another program, such as a running QEMU, has it open for writing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s v -l verbose -d 'Print each step; given twice, each record sent too'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l direct -d 'Bypass the page cache with O_DIRECT'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s q -l quiet -d 'Print warnings and errors only'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
