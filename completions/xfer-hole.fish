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

complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l hash-interval -d 'Interval of the digests: a power of two, 4K to 16M; 1M if not given' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l min-hole -d 'Send holes shorter than this as data; with --hash it is the grain: a power of two, 512 to the interval' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l since-snapshot -d 'Send only what changed since this internal snapshot of the image, found from its tables alone. The target must hold the snapshot\'s disk: the rest of it is kept' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l since-base -d 'Send only what the images above this file of the backing chain have. The target must hold that file\'s disk' -r -F
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l bitmap -d 'Send only what this persistent bitmap of the image is set for. The target must hold the disk as it was when the bitmap was begun' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l base-digest -d 'Name the older disk that the target must hold, which the receiver checks, by its fingerprint. Without it the older state is read here, unless its fingerprint was noted' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l chmod -d 'Give the file these permissions, in octal' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l chown -d 'Give the file this owner: USER, USER:GROUP or :GROUP' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l remote-path -d 'Run this program at the other side, recv-hole or xfer-hole, where it isn\'t found by itself: on PATH there, in ~/.cargo/bin, ~/.local/bin or /usr/local/bin. ~/ is the home directory there' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s e -l rsh -d 'Run this instead of ssh: a program and its words, to which the options below, the host and the command are added. The options are for OpenSSH' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s P -l port -d 'Connect to this port' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s i -l identity -d 'Log in with the private key in this file' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s J -l jump -d 'Connect through this host, or through several, with commas between them' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s o -l ssh-option -d 'Give ssh this option, as in its configuration file; can be repeated' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s F -l ssh-config -d 'Let ssh read this configuration file' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l timeout -d 'Give up when nothing has moved for so long: seconds, or with m or h behind them minutes or hours; 60 if not given. It counts from the far end\'s first answer on where ssh may ask for a password before, and from the start, if it was given, where ssh can\'t: with -o BatchMode=yes, or without a terminal, SSH_ASKPASS and DISPLAY' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l bwlimit -d 'Limit bandwidth, in bytes per second: with K, M or G behind the number, or B' -r
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l receiver -d 'What receives at the other side: binary is the recv-hole installed there, sh is recv-hole.sh, which is sent along and needs only sh, auto is binary where it is installed, else sh; if not given, auto' -r -f -a "auto\t'recv-hole if it is there, else the script'
binary\t'recv-hole'
sh\t'recv-hole.sh'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l speaks -d 'For programs: end with 0 if this version of the conversation is spoken, else with 2' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l restrict -d 'For "command=" in authorized_keys: take the request of a pull from SSH_ORIGINAL_COMMAND, and read images beneath DIR only; see xfer-hole-restrict(7)' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l detect-zeroes -d 'Whether zeros in what the extents call data become holes; on if not given' -r -f -a "on\t'In blocks of 4 KiB'
off\t'Extents alone are trusted'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l reflink -d 'Whether a copy shares its blocks with the image: auto does where that can be, if the image is raw and no flag has zeros looked for; if not given, auto' -r -f -a "auto\t'If it can'
always\t'Or it is refused'
never\t'All is copied'"
complete -c xfer-hole -n "__fish_xfer_hole_needs_command" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a stream on standard output' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l hash -d 'Send a SHA-256 with each interval, so that nothing arrives unverified. To another machine that is so without this flag'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-hash -d 'Send no SHA-256 to another machine'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l classic -d 'Speak the dialect of 2014, which has no size, no end and no digests: a cut can\'t be seen'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l trust-base -d 'Don\'t have the receiver check that the target holds the older disk: if it doesn\'t, the result is a disk that never was'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l in-place -d 'Update an existing file directly, without DEST.part; an interruption leaves it half old, half new. A file that isn\'t there yet is made as without this flag'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l target-is-zero -d 'DEST, a block device, reads as zeros already: don\'t write its holes'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l discard -d 'DEST, a block device that gives back no space of what is zeroed, such as a thin volume: discard its holes, and read samples of them back; what doesn\'t read as zeros then is zeroed'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-sync -d 'Don\'t wait until the disk is on stable storage; if the machine fails soon after, old and new may be lost'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l direct -d 'Leave the page cache of the machine as it is, here and at the other side: read and write by O_DIRECT, and where that is not to be had, drop from the cache what was moved'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l delta -d 'Send only what differs from what DEST holds, interval by interval of 64 KiB; both sides read all of theirs'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l remember -d 'Believe the fingerprints that were noted when both disks were sent or written last, where nothing was touched since: with --delta, a disk that DEST has already is found without reading'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-resume -d 'Start over where an earlier transfer was cut, instead of going on from its DEST.part'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l read-back -d 'Read the whole disk back once it is stored, past the page cache as far as that can be, and compare it with its digests before it is given its name, or called done'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l check-base -d 'If only changes are sent: refuse a stream that doesn\'t name the older disk. One that is named is always checked'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-clobber -d 'Leave a DEST that is there already as it is, and fail'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s f -l force -d 'Write DEST although a virtual machine or a loop device uses it, although the file there came from another image, and although DEST.part is another program\'s file'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l mkpath -d 'Make the directories that DEST is to lie in'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s n -l dry-run -d 'Check all that can be checked, say what would be done, and write nothing'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s C -l compress -d 'Let ssh compress what it carries'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l converse -d 'For programs that hold both directions of a link: the receiver\'s answers come on standard input'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l live -d 'Accept that the image changes while it is sent: what arrives is then not of one moment. Changes are noticed of files only, not of block devices'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l print-digest -d 'Print the disk\'s fingerprint on standard error, to compare it with the receiver\'s'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -l print-receiver -d 'Write recv-hole.sh, the receiver that needs nothing but sh, to standard output'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -s V -l version -d 'Print version'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "map" -d 'Print what is where in an image, extent by extent'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "info" -d 'Print what an image is, and what it lies on'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "fold" -d 'Put the data of a sparse raw file into its parent, the file below it in a chain'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "prune" -d 'Punch out of a sparse raw file what its child, the file above it in a chain, has itself'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "manifest" -d 'Print the disk\'s record lines, with digests and without its octets'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "digest" -d 'Print the disk\'s fingerprint'
complete -c xfer-hole -n "not __fish_xfer_hole_using_subcommand map info fold prune manifest digest verify" -a "verify" -d 'Compare a disk with a manifest'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l output -d 'How it is printed' -r -f -a "human\t'For people'
json\t'JSON, with qemu-img\'s names for what both tell'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand map" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l output -d 'How it is printed' -r -f -a "human\t'For people'
json\t'JSON, with qemu-img\'s names for what both tell'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l format -d 'What both are: auto refuses files that begin as images of other formats do, raw takes them as they are' -r -f -a "auto\t'Raw, as far as their beginnings show'
raw\t'Raw, whatever is in them'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s n -l dry-run -d 'Check all that can be checked, say how much would be done, and write nothing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -l no-sync -d 'Don\'t wait until it is on stable storage; if the machine fails soon after, it may be lost'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s v -l verbose -d 'Say what is done'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand fold" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l format -d 'What both are: auto refuses files that begin as images of other formats do, raw takes them as they are' -r -f -a "auto\t'Raw, as far as their beginnings show'
raw\t'Raw, whatever is in them'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s n -l dry-run -d 'Check all that can be checked, say how much would be done, and write nothing'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -l no-sync -d 'Don\'t wait until it is on stable storage; if the machine fails soon after, it may be lost'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s v -l verbose -d 'Say what is done'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s o -l output -d 'The file to make or replace; if not given, standard output' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l hash-interval -d 'Interval of the digests: a power of two, 4K to 16M; 1M if not given' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l min-hole -d 'The grain: zeros are found in blocks of this size, a power of two, 512 to the interval; 4K if not given' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a manifest on standard output' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -l direct -d 'Leave the page cache as it is: read by O_DIRECT, and where that is not to be had, drop from the cache what was read'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand manifest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l hash-interval -d 'Interval of the digests: a power of two, 4K to 16M; 1M if not given' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l min-hole -d 'The grain: zeros are found in blocks of this size, a power of two, 512 to the interval; 4K if not given' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a manifest on standard output' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -l direct -d 'Leave the page cache as it is: read by O_DIRECT, and where that is not to be had, drop from the cache what was read'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand digest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l format -d 'The image\'s format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file unless it is named *.qcow2, too. raw: the file as it is, whatever is in it' -r -f -a "auto\t'Raw for a block device, by content for a file'
raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l backing-format -d 'The format of backing files that are not declared to have one; it is never looked for in them' -r -f -a "raw\t'The disk itself'
qcow2\t'QEMU\'s qcow2'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l snapshot -d 'Read this internal snapshot, in its own size, not the present state' -r
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l allow -d 'Files that an image names may lie below this directory, too, and not only below the image\'s own; can be repeated' -r -F
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l extents -d 'How the extents of raw images are found; if not given, seek, and scan where that is not to be had' -r -f -a "seek\t'By SEEK_DATA and SEEK_HOLE'
fiemap\t'By FIEMAP'
scan\t'By reading everything'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal. If not given: auto, and none for a manifest on standard output' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l list -d 'Print all ranges that differ, and nothing else: offset and length in octets, a line each, whole intervals joined'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l no-backing -d 'Open no file that an image names: an image that needs another is refused'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s U -l force-share -d 'Read an image that another program, such as a running QEMU, may be writing to'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s v -l verbose -d 'Say what is done; twice, when a disk is sent: each record'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -l direct -d 'Leave the page cache as it is: read by O_DIRECT, and where that is not to be had, drop from the cache what was read'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c xfer-hole -n "__fish_xfer_hole_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
