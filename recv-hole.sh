#!/bin/sh
# recv-hole.sh: write the disk that xfer-hole sends on standard input.
# shellcheck disable=SC2250,SC2249 # size: no idle braces, no empty cases
code=2 tmp='' left=''
# Any way out but the last line of main fails, a cut-off copy's too.
trap '[ -z "$tmp" ] || rm -rf -- "$tmp"; exit "$code"' EXIT

# Definitions
#   part   DEST.part, which gets DEST's name after END
#   place  an existing DEST written directly: with -i, or a device
#   pipe   DEST takes octets in order only: -, a fifo, a character device
#   spool  an unlinked file, where a hashed payload waits for its check
#
# Design
#   `read` takes one octet at a time from a pipe, so it can share standard input
#   with dd. Descriptor 3 carries the disk offset: holes add up in pend, and the
#   next dd seeks over them. Numbers are text, checked before any arithmetic and
#   added in limbs of nine digits, as a shell may count in 32 bits.
#
# Variables
#   kind dest part show  what is written, and its name in messages
#   size ival grain      the open line's
#   rec off pend prev    record, disk offset, octets to seek over, last word

usage='usage: recv-hole.sh [-i] [-s] [-n] DEST < stream
  -i in place, -s no digests: nothing is verified, -n no sync; DEST - is stdout'

warn() {
	printf 'recv-hole.sh: %s\n' "$*" >&2
}

die() {
	warn "$*$left"
	exit 2
}

bad() {
	die "record $rec at disk offset ${off}: $*"
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# number TEXT: is it 1 .. 2^63-1, without sign or leading zero?
number() {
	case $1 in
	'' | 0* | *[!0123456789]*) return 1 ;;
	*) [ "${#1}" -le 19 ] && le "$1" 9223372036854775807 ;;
	esac
}

# split N: limbs l2 l1 l0. A 1 put in front keeps zeros from meaning octal.
split() {
	l2=0 l1=0 l0=$1
	[ "${#1}" -gt 9 ] || return 0
	l1=${1%?????????}
	l0=$((1${1#"$l1"} - 1000000000))
	[ "${#l1}" -gt 9 ] || return 0
	l2=${l1%?????????}
	l1=$((1${l1#"$l2"} - 1000000000))
}

# both A B: limbs l of A, m of B
both() {
	split "$2"
	m2=$l2 m1=$l1 m0=$l0
	split "$1"
}

le() {
	both "$1" "$2"
	if [ "$l2" -ne "$m2" ]; then
		[ "$l2" -lt "$m2" ]
	elif [ "$l1" -ne "$m1" ]; then
		[ "$l1" -lt "$m1" ]
	else
		[ "$l0" -le "$m0" ]
	fi
}

# add A B: total=A+B
add() {
	both "$1" "$2"
	m0=$((l0 + m0))
	m1=$((l1 + m1 + m0 / 1000000000))
	m2=$((l2 + m2 + m1 / 1000000000))
	total=$((m0 % 1000000000))
	[ "$m2$m1" != 00 ] || return 0
	l0=$((1000000000 + total))
	total=$((m1 % 1000000000))
	l1=$((1000000000 + total))
	[ "$m2" = 0 ] || total=$m2${l1#1}
	total=$total${l0#1}
}

# modulo N M: rest=N mod M, a power of two up to 2^24. Where arithmetic has
# 32 bits it wraps, which leaves these bits alone.
modulo() {
	split "$1"
	rest=$((((l2 * 1000000000 + l1) * 1000000000 + l0) & ($2 - 1)))
}

# power N MIN MAX: is N a power of two between them?
power() {
	number "$1" && le "$2" "$1" && le "$1" "$3" && [ "$(($1 & ($1 - 1)))" -eq 0 ]
}

digest() {
	[ "${#1}" -eq 64 ] || return 1
	case $1 in *[!0123456789abcdef]*) return 1 ;; esac
}

# look [-L] FILE: what it is. /proc/self/fd/0 is what descriptor 3 has open.
look() {
	# shellcheck disable=SC2046,SC2312 # to be fields, under set -f
	set -- $(ls -lind "$@" <&3 2>/dev/null) '' '' '' '' '' '' ''
	# a device has major and minor where others have the length
	ino=$1 mode=$2 links=$3 uid=$4 gid=$5 length=$6 minor=$7
}

# scratch: a private directory for a run's files, gone once they are open
scratch() {
	for t in "${TMPDIR:-/dev/shm}" /dev/shm /tmp "${dest%/*}"; do
		t=$t/recv-hole.$$
		mkdir -m 700 -- "$t" 2>/dev/null && tmp=$t && break
	done
	spool=$tmp/spool err=$tmp/err
	{ command exec 4<>"$spool" 6<>"$err"; } 2>/dev/null || die "no place for temporary files: set TMPDIR"
	if [ -n "$hashed" ]; then
		mkfifo -- "$tmp/lines" || die "can't make a fifo"
		$quick >"$tmp/sum" 2>/dev/null <"$tmp/lines" &
		exec 5>"$tmp/lines" 7<"$tmp/sum"
	fi
	# without /proc they keep their names until the end
	[ -e /proc/self/fd/6 ] || return 0
	spool=/proc/self/fd/4 err=/proc/self/fd/6
	rm -rf -- "$tmp" && tmp=''
}

# broke MESSAGE: the last dd or mv failed, and why
broke() {
	why=unknown
	while read -r t; do
		case $why$t in unknowndd:* | unknownmv:*) why=${t##*: } ;; esac
	done <"$err"
	bad "$1: $why"
}

# moved N: did the last dd move N octets? (Short input is no error to it.)
moved() {
	x=/proc/self/fdinfo/3 d=$ahead
	[ "$kind" != pipe ] || x=$err d=$1
	e=$d
	while read -r t x; do
		case $t:$x in
		pos:*) e=$x ;;
		*copied*) e=$t ;;
		esac
	done <"$x"
	[ "$d" = "$e" ]
} 2>/dev/null

# pour N [operand..]: N octets of standard input to DEST, behind what pends
pour() {
	t=$1
	shift
	$take oflag=seek_bytes conv=notrunc seek="$pend" count="$t" "$@" >&3 2>"$err" ||
		broke "can't write $show"
	pend=0
}

# resize FILE: to the disk's size
resize() {
	dd bs=1 count=0 seek="$size" of="$1" </dev/null 2>"$err" ||
		broke "can't make $show $size octets large"
}

# pass N: leave N octets of DEST as they are
pass() {
	add "$pend" "$1"
	pend=$total
}

# zero N: octets of what may hold old ones
zero() {
	if [ -n "$dev" ]; then
		modulo "$off" 4096
		t=$rest
		modulo "$1" 4096
		[ "$t$rest" = 00 ] || set -- "$1" odd
	fi
	if [ -n "$zap" ] && [ "$#" -eq 1 ]; then
		# where the disk ends within a block, the whole block is to go
		total=$1
		[ "$dev$ahead" != "$size" ] || add "$1" 65536
		for t in "$total" "$1"; do
			$zap -o "$off" -l "$t" "$dest" >/dev/null 2>&1 && pass "$1" && return
		done
		zap=''
	fi
	pour "$1" if=/dev/zero
}

# held MAJOR:MINOR: is this device mounted, swapped to, or part of another?
held() {
	while read -r x y t z; do
		[ "$t" != "$1" ] || return 0
	done </proc/self/mountinfo
	while read -r x y; do
		[ -b "$x" ] || continue
		look "$x"
		[ "$length$minor" != "${1%:*},${1#*:}" ] || return 0
	done </proc/swaps
	z=none
	while IFS='=' read -r x y; do
		[ "$x" != DEVNAME ] || z=${y##*/}
	done <"/sys/dev/block/$1/uevent"
	set +f
	# btrfs shows no device of its own in mountinfo
	set -- /sys/dev/block/"$1"/holders/* /sys/fs/btrfs/*/devices/"$z"
	set -f
	for x; do
		[ ! -e "$x" ] || return 0
	done
	return 1
} 2>/dev/null

# device: had=its length. One in use is refused, or with a part or disk in use.
device() {
	look "$dest"
	t=/sys/dev/block/${length%,}:$minor
	set +f
	set -- "$t" "$t"/*/
	set -f
	[ ! -e "$t/partition" ] || set -- "$t" "$t/.."
	had=''
	{ read -r had <"$t/size"; } 2>/dev/null
	number "$had" || die "can't tell the size of $show"
	# in sectors of 512 octets
	for x in 1 2 3 4 5 6 7 8 9; do
		add "$had" "$had"
		had=$total
	done
	for x; do
		[ "$x" = "$1" ] || [ "$x" = "$1/.." ] || [ -e "$x/partition" ] || continue
		read -r id <"$x/dev" || continue
		! held "$id" || die "$show is in use: $id is mounted, swap or held"
	done
}

# guest: has a running QEMU locked what descriptor 3 has open?
guest() {
	id='' z=none
	while read -r x y; do
		[ "$x" != mnt_id: ] || z=$y
	done </proc/self/fdinfo/3
	while read -r x y t y; do
		[ "$x" != "$z" ] || id=$t
	done </proc/self/mountinfo
	[ -n "$id" ] || return 1
	look "$dest"
	id=$(printf '%02x:%02x:%s' "${id%:*}" "${id#*:}" "$ino")
	while read -r x y t t t z; do
		case "$y $z" in
		"OFDLCK $id "[12]0[0-7]' '*) return 0 ;;
		esac
	done </proc/locks
	return 1
} 2>/dev/null

# resolve: what is DEST? Links lead to what is to be replaced.
resolve() {
	show=$dest
	case $dest in
	-) kind=pipe && return ;;
	/*) ;;
	*) dest=./$dest ;;
	esac
	if [ -h "$dest" ] && [ ! -c "$dest" ] && [ ! -p "$dest" ]; then
		t=$(readlink -fn -- "$dest" 2>/dev/null && printf x) || die "can't follow the link $show: needs readlink -f"
		dest=${t%x} show=${t%x}
	fi
	kind=part
	if [ -b "$dest" ]; then
		kind=place dev=1
	elif [ -c "$dest" ] || [ -p "$dest" ]; then
		kind=pipe
	elif [ -f "$dest" ]; then
		look "$dest"
		old=${uid}:$gid perm=$mode had=$length
		kind=${inplace:-part}
	elif [ -e "$dest" ]; then
		die "$show is no file and no device"
	fi
}

plain() {
	look "$part"
	case ${mode}:$links in
	-*:1) ;;
	*) die "$t is not a plain file of one link" ;;
	esac
}

target() {
	t=$show x=$dest
	case $kind in
	pipe)
		if [ "$dest" = - ]; then
			exec 3>&1 >/dev/null
		else
			{ command exec 3>"$dest"; } 2>/dev/null || die "can't open $show"
		fi
		return
		;;
	part)
		part=$dest.part
		t=$show.part x=$part
		# noclobber: no link is followed, and no other's file is taken
		[ -e "$part" ] || [ -h "$part" ] || (umask 077 && set -C && : >"$part") 2>/dev/null ||
			die "can't create $t (-i writes an existing file in place)"
		plain
		;;
	esac
	{ command exec 3<>"$x"; } 2>/dev/null || die "can't open $t"
	# without flock(1) two receivers are not kept apart
	! have flock || flock -n 0 <&3 2>/dev/null || die "$t is in use by another receiver"
	if [ "$kind" = part ]; then
		plain
		x=$ino
		look -L /proc/self/fd/0
		[ "${ino:-"$x"}" = "$x" ] || die "$t was replaced meanwhile"
		left="; kept $t"
		chmod 600 "$part" && : >"$part"
		resize "$part"
		return
	fi
	! guest || die "$show is in use by a running QEMU"
	zap='fallocate -p'
	[ -n "$dev" ] || return 0
	zap='blkdiscard -z -p 134217728'
	device
	le "$size" "$had" || bad "$show is too small: $had octets for a disk of $size"
}

# begin: from here on DEST changes, where it is written in place
begin() {
	[ "$kind$begun" = place ] || return 0
	begun=1
	[ -n "$dev" ] || le "$size" "$had" || resize "$dest"
	left="; $show is not whole now"
}

# next: the next line. What `read` can't end with a newline is cut off.
next() {
	IFS= read -r line 2>/dev/null && return
	[ -z "$line" ] || bad "stream cut in a line"
	if [ -n "$poured" ] && ! moved "$poured"; then
		rec=$((rec - 1)) off=$start
		bad "stream cut in DATA"
	fi
	bad "stream cut before END"
}

opening() {
	rec=0 off=0 pend=0 prev='' poured='' base='' kept='' log='' begun=''
	next
	t=${line#XFER-HOLE 1 }
	[ "$t" != "$line" ] || bad "not a stream of xfer-hole, version 1"
	size=${t%% *} ival='' hashed=''
	[ "$size" = 0 ] || number "$size" || bad "bad size"
	[ "$t" != "$size" ] || return 0
	grain=${t##* } ival=${t% *}
	ival=${ival##* }
	[ "$t" = "$size sha256 $ival $grain" ] || bad "unknown words"
	power "$ival" 4096 16777216 || bad "bad interval"
	power "$grain" 512 "$ival" || bad "bad grain"
	[ -z "$skip" ] || return 0
	hashed=1
	[ -n "$quick" ] || bad "digests need openssl, sha256sum or shasum (-s skips them)"
}

basis() {
	rec=0
	d=${n#* } base=${n%% *}
	[ "$line" = "BASE $base" ] || digest "$d" || bad "bad digest in BASE"
	[ "$base" = 0 ] || number "$base" || bad "bad size in BASE"
	[ -n "$had" ] || bad "BASE, but there is no $show to keep octets of"
	le "$base" "$had" || bad "$show is smaller than BASE"
	rec=1
}

# cover WORD N: check a record's length and place
cover() {
	number "$2" || bad "$1 with a bad length"
	add "$off" "$2"
	ahead=$total
	le "$ahead" "$size" || bad "$1 runs past the disk's end"
	if [ "$1" = KEEP ]; then
		kept=1
		[ -n "$base" ] || bad "KEEP without BASE"
		le "$ahead" "$base" || bad "KEEP runs past BASE"
	fi
	[ -z "$ival" ] || canonical "$@"
	begin
	[ -n "$hashed" ] || return 0
	# in bundles, as printf may be a process
	log="$log$line
"
	[ "${#log}" -lt 4000 ] || flush
}

canonical() {
	modulo "$off" "$grain"
	[ "$rest" = 0 ] || bad "$1 starts off the grain"
	modulo "$ahead" "$ival"
	t=$rest
	modulo "$off" "$ival"
	case $1:${prev}:$rest in
	DATA:DATA:0) ;;
	DATA:DATA:*) bad "DATA follows DATA inside an interval" ;;
	HOLE:HOLE:* | KEEP:KEEP:*) bad "$1 follows $1" ;;
	KEEP:*:0) [ "$t" = 0 ] || [ "$ahead" = "$size" ] || bad "KEEP ends inside an interval" ;;
	KEEP:*) bad "KEEP starts inside an interval" ;;
	esac
	[ "$1" = DATA ] || return 0
	add "$rest" "$2"
	le "$total" "$ival" || bad "DATA crosses an interval"
}

flush() {
	printf '%s' "$log" >&5
	log=''
}

data() {
	if [ -n "$ival" ]; then
		d=${n#* } n=${n%% *}
		[ "$line" = "DATA $n $d" ] || d=''
		digest "$d" || bad "DATA without a good digest"
	fi
	cover DATA "$n"
	if [ -z "$hashed" ]; then
		pour "$n"
		poured=$n
		return
	fi
	$take count="$n" >"$spool" 2>"$err" || broke "can't write a temporary file"
	# sha256sum starts faster than openssl, which wins from 1 MB on
	t=$quick
	[ "${#n}" -lt 7 ] || t=$strong
	t=$($t <"$spool" 2>/dev/null)
	if [ "${t%% *}" != "$d" ]; then
		t=$(wc -c <"$spool")
		[ "$t" -eq "$n" ] || bad "stream cut in DATA"
		bad "DATA has a wrong digest"
	fi
	pour "$n" <"$spool"
}

hole() {
	cover HOLE "$n"
	case $kind in
	part) pass "$n" ;;
	pipe) pour "$n" if=/dev/zero ;;
	*) zero "$n" ;;
	esac
}

keep() {
	cover KEEP "$n"
	if [ "$kind" = place ]; then
		pass "$n"
	else
		# shellcheck disable=SC2086 # operands: none, or two
		pour "$n" if="$dest" iflag=skip_bytes skip="$off" $sparse
		moved "$n" || bad "$show became shorter"
	fi
}

records() {
	rec=1
	while next; do
		start=$off ahead=$off poured='' n=${line#* }
		case $line in
		"DATA "*) data ;;
		"HOLE "*) hole ;;
		"KEEP "*) keep ;;
		WAIT) ;;
		BASE | "BASE "*)
			[ "$rec$base" = 1 ] || bad "BASE out of place"
			basis
			continue
			;;
		END | "END "*) return ;;
		"FAIL "*) gave_up ;;
		*) bad "not a line of the protocol" ;;
		esac
		[ "$line" = WAIT ] || prev=${line%% *}
		off=$ahead
		rec=$((rec + 1))
	done
}

gave_up() {
	case $n in
	'' | *[!\ -~]*) bad "bad text in FAIL" ;;
	*) [ "${#n}" -le 900 ] || bad "FAIL is too long" ;;
	esac
	bad "sender gave up: $n"
}

ending() {
	[ "$off" = "$size" ] || bad "END before the disk's end"
	if [ -z "$ival" ]; then
		[ "$line" = END ] || bad "END with a digest"
	else
		d=${line##* }
		digest "$d" || bad "bad digest in END"
		case $line in
		"END $d") ;;
		"END $d $d") [ -z "$kept" ] || bad "a second digest in END after KEEP" ;;
		*) bad "bad digests in END" ;;
		esac
	fi
	if [ -n "$hashed" ]; then
		flush
		exec 5>&-
		wait
		read -r t <&7
		[ "${t%% *}" = "$d" ] || bad "END has a wrong digest of the lines"
	fi
	t=$(dd bs=1 count=1 2>/dev/null | wc -c)
	[ "$t" -eq 0 ] || bad "octets after END"
	begin
}

publish() {
	case $kind$dev in
	pipe) return ;;
	place) le "$had" "$size" || resize "$dest" ;;
	place1) [ "$had" = "$size" ] || warn "$show is larger: what is behind $size octets was left" ;;
	*) give ;;
	esac
	[ -n "$nosync" ] || dd count=0 conv=fsync,notrunc </dev/null >&3 2>"$err" || broke "can't sync $show"
	[ "$kind" = part ] || return 0
	[ ! -d "$dest" ] || die "$show is a directory now"
	mv -f -- "$part" "$dest" 2>"$err" || broke "can't rename over $show (-i writes in place)"
	left=", though $show has been replaced"
	[ -n "$nosync" ] || sync ${dir:+"$dir"} 2>/dev/null || die "can't sync its directory"
}

# give: the old DEST's owner and mode to part
give() {
	look "$part"
	[ "$length" = "$size" ] || die "$show.part has not the disk's size"
	oct='=rw'
	if [ -n "$old" ]; then
		[ "${uid}:$gid" = "$old" ] || chown "$old" "$part" 2>/dev/null ||
			warn "can't give $show its old owner $old"
		oct='' t=${perm#?}
		for x in "$t" "${t#???}" "${t#??????}"; do
			b=0
			case $x in r*) b=4 ;; esac
			case $x in ?w*) b=$((b + 2)) ;; esac
			case $x in ??[xst]*) b=$((b + 1)) ;; esac
			oct=$oct$b
		done
	fi
	chmod "$oct" "$part" 2>/dev/null || die "can't set the mode of $show.part"
}

tools() {
	for t in ls mkdir mkfifo rm mv chmod chown wc sync; do
		have "$t" || die "needs $t"
	done
	take='dd bs=524288 iflag=fullblock,count_bytes'
	t=$(printf abc | $take oflag=seek_bytes conv=notrunc seek=0 count=2 2>/dev/null)
	[ "$t" = ab ] || die "needs dd with iflag=fullblock,count_bytes oflag=seek_bytes"
	sparse='bs=4096 conv=sparse'
	dd conv=sparse count=0 </dev/null >/dev/null 2>&1 || sparse=''
	quick='' strong=''
	have shasum && quick='shasum -a 256'
	have openssl && quick='openssl dgst -sha256 -r' strong=$quick
	have sha256sum && quick=sha256sum
	strong=${strong:-"$quick"}
}

main() {
	set -fu
	unset BLOCK_SIZE BLOCKSIZE LS_BLOCK_SIZE
	LC_ALL=C IFS=$(printf ' \t')
	export LC_ALL
	# an endless line must not eat the machine
	# shellcheck disable=SC3045 # where there is no -v, nothing is limited
	{ ulimit -v 524288; } 2>/dev/null || :
	exec 3</dev/null
	inplace='' skip='' nosync='' dev='' old='' had=''
	while getopts :isnh t; do
		case $t in
		i) inplace=place ;;
		s) skip=1 ;;
		n) nosync=1 ;;
		h) printf '%s\n' "$usage" && code=0 && exit ;;
		*) die "$usage" ;;
		esac
	done
	shift "$((OPTIND - 1))"
	[ -n "${1:-}" ] || set --
	[ "$#" -eq 1 ] || die "$usage"
	dest=$1
	tools
	resolve
	opening
	scratch
	target
	# a sync that takes a name tells of failure
	dir=${dest%/*}/
	[ "$nosync$kind" != part ] || sync "$dir" 2>/dev/null || dir=''
	records
	ending
	publish
	code=0
}

main "$@"
