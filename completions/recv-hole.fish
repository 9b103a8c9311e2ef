complete -c recv-hole -l chmod -d 'Set the permissions of the file to MODE, in octal' -r
complete -c recv-hole -l chown -d 'Set the owner of the file: USER, USER:GROUP or :GROUP' -r
complete -c recv-hole -l remote-path -d 'Run PROGRAM on the remote machine as xfer-hole or recv-hole' -r
complete -c recv-hole -s e -l rsh -d 'Connect with COMMAND (default: ssh)' -r
complete -c recv-hole -s P -l port -d 'Connect to PORT (default: from the ssh configuration)' -r
complete -c recv-hole -s i -l identity -d 'Log in with the private key in file KEY' -r
complete -c recv-hole -s J -l jump -d 'Connect through the host JUMP, or several separated by commas' -r
complete -c recv-hole -s o -l ssh-option -d 'Pass OPTION to ssh, as in ssh_config (repeatable)' -r
complete -c recv-hole -s F -l ssh-config -d 'Read FILE as the ssh configuration (default: ~/.ssh/config)' -r
complete -c recv-hole -l timeout -d 'Give up after TIME without data (seconds; m, h accepted; default: 60)' -r
complete -c recv-hole -l bwlimit -d 'Limit bandwidth to RATE (bytes per second, with unit B, K, M or G)' -r
complete -c recv-hole -s M -l remote-option -d 'Pass OPTION, such as --snapshot=NAME, to xfer-hole there (repeatable)' -r
complete -c recv-hole -l speaks -d 'Exit with 0 if VERSION is supported, else with 2 (for programs)' -r
complete -c recv-hole -l request -d 'Serve push request WORDS, reply on standard output (for programs)' -r
complete -c recv-hole -l max-size -d 'Refuse a disk larger than SIZE bytes (K, M, G, T accepted; default: none)' -r
complete -c recv-hole -l restrict -d 'Serve push requests below DIR only, as the forced command of an ssh key' -r -F
complete -c recv-hole -l progress -d 'Show progress (default: auto for HOST:IMAGE, none for standard input)' -r -f -a "auto\t'A bar if standard error is a terminal'
bar\t'A bar, even if standard error is not a terminal'
json\t'One JSON object per line for each message, and one per second for progress, see xfer-hole-progress(7)'
none\t'No progress'"
complete -c recv-hole -l in-place -d 'Update an existing file directly instead of writing DEST.part'
complete -c recv-hole -l target-is-zero -d 'Skip writing holes: the block device DEST already reads as zeros'
complete -c recv-hole -l discard -d 'Discard holes on the block device DEST instead of zeroing them'
complete -c recv-hole -l no-sync -d 'Skip waiting for stable storage (a crash may lose the old and the new disk)'
complete -c recv-hole -l direct -d 'Bypass the page cache with O_DIRECT on both machines'
complete -c recv-hole -l delta -d 'Send only the 64 KiB intervals that differ from DEST'
complete -c recv-hole -l remember -d 'Trust cached fingerprints of disks unchanged since their last transfer'
complete -c recv-hole -l no-resume -d 'Start over instead of resuming from DEST.part'
complete -c recv-hole -l read-back -d 'Read the stored disk back and check its checksums before reporting success'
complete -c recv-hole -l check-base -d 'Refuse an incremental stream that does not name its base disk'
complete -c recv-hole -l no-clobber -d 'Fail if DEST already exists'
complete -c recv-hole -s f -l force -d 'Write DEST even if it is in use or was made from another image'
complete -c recv-hole -l mkpath -d 'Create missing parent directories of DEST'
complete -c recv-hole -s n -l dry-run -d 'Check everything and print what would be done; write nothing'
complete -c recv-hole -s C -l compress -d 'Compress the connection with ssh'
complete -c recv-hole -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c recv-hole -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c recv-hole -l no-hash -d 'Transfer a remote image without checksums (default: with checksums)'
complete -c recv-hole -l converse -d 'Write replies to standard output (for programs)'
complete -c recv-hole -l verify -d 'Compare DEST with the manifest on standard input; write nothing'
complete -c recv-hole -l list -d 'Print only the ranges that differ: OFFSET LENGTH in bytes (with --verify)'
complete -c recv-hole -l require-hash -d 'Refuse a stream without checksums'
complete -c recv-hole -l allow-read -d 'Let senders keep existing data and read its checksums (with --restrict)'
complete -c recv-hole -l classic -d 'Read the 2014 stream format, in which truncation can\'t be detected'
complete -c recv-hole -s q -l quiet -d 'Print warnings and errors only'
complete -c recv-hole -l print-digest -d 'Print the fingerprint of the disk on standard error'
complete -c recv-hole -s v -l verbose -d 'Print each step; given twice, each record too'
complete -c recv-hole -s h -l help -d 'Print help (see more with \'--help\')'
complete -c recv-hole -s V -l version -d 'Print version'
