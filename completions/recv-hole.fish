complete -c recv-hole -l chmod -d 'Give the file these permissions, in octal' -r
complete -c recv-hole -l chown -d 'Give the file this owner: USER, USER:GROUP or :GROUP' -r
complete -c recv-hole -l remote-path -d 'Run this program at the other side, recv-hole or xfer-hole, where it isn\'t found by itself: on PATH there, in ~/.cargo/bin, ~/.local/bin or /usr/local/bin. ~/ is the home directory there' -r
complete -c recv-hole -s e -l rsh -d 'Run this instead of ssh: a program and its words, to which the options below, the host and the command are added. The options are for OpenSSH' -r
complete -c recv-hole -s P -l port -d 'Connect to this port' -r
complete -c recv-hole -s i -l identity -d 'Log in with the private key in this file' -r
complete -c recv-hole -s J -l jump -d 'Connect through this host, or through several, with commas between them' -r
complete -c recv-hole -s o -l ssh-option -d 'Give ssh this option, as in its configuration file; can be repeated' -r
complete -c recv-hole -s F -l ssh-config -d 'Let ssh read this configuration file' -r
complete -c recv-hole -l timeout -d 'Give up when nothing has moved for so long: seconds, or with m or h behind them minutes or hours; 60 if not given. It counts from the far end\'s first answer on where ssh may ask for a password before, and from the start, if it was given, where ssh can\'t: with -o BatchMode=yes, or without a terminal, SSH_ASKPASS and DISPLAY' -r
complete -c recv-hole -l bwlimit -d 'Limit bandwidth, in bytes per second: with K, M or G behind the number, or B' -r
complete -c recv-hole -s M -l remote-option -d 'Give this option to the xfer-hole at the other side, such as --snapshot=NAME; can be repeated' -r
complete -c recv-hole -l speaks -d 'For programs: end with 0 if this version of the conversation is spoken, else with 2' -r
complete -c recv-hole -l request -d 'For programs: receive what the words of a sender\'s request ask for, and answer on standard output' -r
complete -c recv-hole -l max-size -d 'Refuse a disk larger than this' -r
complete -c recv-hole -l restrict -d 'For "command=" in authorized_keys: take the request from SSH_ORIGINAL_COMMAND, and write beneath DIR only, and with --no-clobber new files only; see xfer-hole-restrict(7)' -r -F
complete -c recv-hole -l progress -d 'Show how far it is: auto is a bar if standard error is a terminal. If not given: auto for HOST:IMAGE, and none for a stream on standard input' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, wherever standard error goes'
json\t'All messages as JSON, one object a line, and one each second: see xfer-hole-progress(7)'
none\t'Nothing'"
complete -c recv-hole -l in-place -d 'Update an existing file directly, without DEST.part; an interruption leaves it half old, half new. A file that isn\'t there yet is made as without this flag'
complete -c recv-hole -l target-is-zero -d 'DEST, a block device, reads as zeros already: don\'t write its holes'
complete -c recv-hole -l discard -d 'DEST, a block device that gives back no space of what is zeroed, such as a thin volume: discard its holes, and read samples of them back; what doesn\'t read as zeros then is zeroed'
complete -c recv-hole -l no-sync -d 'Don\'t wait until the disk is on stable storage; if the machine fails soon after, old and new may be lost'
complete -c recv-hole -l direct -d 'Leave the page cache of the machine as it is, here and at the other side: read and write by O_DIRECT, and where that is not to be had, drop from the cache what was moved'
complete -c recv-hole -l delta -d 'Send only what differs from what DEST holds, interval by interval of 64 KiB; both sides read all of theirs'
complete -c recv-hole -l remember -d 'Believe the fingerprints that were noted when both disks were sent or written last, where nothing was touched since: with --delta, a disk that DEST has already is found without reading'
complete -c recv-hole -l no-resume -d 'Start over where an earlier transfer was cut, instead of going on from its DEST.part'
complete -c recv-hole -l read-back -d 'Read the whole disk back once it is stored, past the page cache as far as that can be, and compare it with its digests before it is given its name, or called done'
complete -c recv-hole -l check-base -d 'If only changes are sent: refuse a stream that doesn\'t name the older disk. One that is named is always checked'
complete -c recv-hole -l no-clobber -d 'Leave a DEST that is there already as it is, and fail'
complete -c recv-hole -s f -l force -d 'Write DEST although a virtual machine or a loop device uses it, although the file there came from another image, and although DEST.part is another program\'s file'
complete -c recv-hole -l mkpath -d 'Make the directories that DEST is to lie in'
complete -c recv-hole -s n -l dry-run -d 'Check all that can be checked, say what would be done, and write nothing'
complete -c recv-hole -s C -l compress -d 'Let ssh compress what it carries'
complete -c recv-hole -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c recv-hole -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c recv-hole -l no-hash -d 'Accept an image from another machine without digests: less work for both'
complete -c recv-hole -l converse -d 'For programs that hold both directions of a link: standard output takes the answers'
complete -c recv-hole -l verify -d 'Write nothing: compare DEST, read as it is, with the manifest on standard input, which xfer-hole manifest writes'
complete -c recv-hole -l list -d 'With --verify: print all ranges that differ, and nothing else: offset and length in octets, a line each, whole intervals joined'
complete -c recv-hole -l require-hash -d 'Refuse a stream without digests'
complete -c recv-hole -l allow-read -d 'With --restrict: what is there already may be kept and told of'
complete -c recv-hole -l classic -d 'Read the dialect of 2014, which has no size, no end and no digests: a cut can\'t be seen'
complete -c recv-hole -s q -l quiet -d 'Say nothing but warnings, and why it failed'
complete -c recv-hole -l print-digest -d 'Print the disk\'s fingerprint on standard error, to compare it with the sender\'s'
complete -c recv-hole -s v -l verbose -d 'Say what is done; twice: each record'
complete -c recv-hole -s h -l help -d 'Print help (see more with \'--help\')'
complete -c recv-hole -s V -l version -d 'Print version'
