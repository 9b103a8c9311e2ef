#!/bin/sh
# recv-hole.sh: write the disk that xfer-hole sends on standard input.
# shellcheck disable=SC2250,SC2249 # size: no idle braces, no empty cases
code=2 tmp='' left=''
# Only the last line of receive succeeds; a truncated copy of this file fails.
trap '[ -z "$tmp" ] || rm -rf -- "$tmp"; exit "$code"' EXIT

# Definitions
#   part   a new file, written as DEST.part and renamed after END
#   place  DEST written in place: --in-place, or a device
#   pipe   DEST takes bytes in order: -, a fifo, a character device
#   spool  an unlinked file that holds a payload until its digest is checked
#
# Design
#   `read` reads single bytes from a pipe, so it can share standard input with
#   dd. The offset of descriptor 3 is the disk offset; the next dd seeks over
#   pending bytes. Numbers are text, checked before arithmetic and added in
#   limbs of nine digits, since a shell may have 32-bit integers.
#
# Variables
#   kind dest part show  what is written, and its name in messages
#   fd                   the path of descriptor 3, as 0 of a program
#   size ival grain      from the header line
#   rec off pend prev    record, disk offset, bytes to seek over, last word

help='usage: recv-hole.sh [OPTION..] DEST < STREAM

Receives a disk image from xfer-hole, and rebuilds it with its holes.
DEST is the file to make or replace, a block device, or - for standard output.

      --in-place   update an existing file directly, without DEST.part
  -f, --force      write a DEST that QEMU, a loop device or another program
                   uses, and replace a DEST.part that no receiver has left
  -n, --dry-run    check DEST, read no stream, and write nothing
      --no-sync    do not wait until the disk is on stable storage
      --skip-hash  do not compute digests: nothing is verified
  -h, --help       print this help

The exit status is 0 when the whole disk is there, else 2.'

say() {
	printf 'recv-hole.sh: %s\n' "$1" >&2
}

# warn TEXT: print it, with control characters replaced
warn() {
	t=$1 m=''
	while x=${t%%[!\ -~]*} && [ "$x" != "$t" ]; do
		m=$m$x\? t=${t#"$x"?}
	done
	say "$m$t"
}

die() {
	warn "$1$left"
	exit 2
}

bad() {
	die "record $rec at disk offset ${off}: $1"
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# number TEXT: succeed if it is a number from 1 to 2^63-1 in canonical form
number() {
	case $1 in
	'' | 0* | *[!0-9]*) return 1 ;;
	*) [ "${#1}" -le 19 ] && le "$1" 9223372036854775807 ;;
	esac
}

# split N: limbs l2 l1 l0. A leading 1 avoids octal numbers.
split() {
	l2=0 l1=0 l0=$1
	[ "${#1}" -gt 9 ] || return 0
	l1=${1%?????????}
	l0=$((1${1#"$l1"} - g))
	[ "${#l1}" -gt 9 ] || return 0
	l2=${l1%?????????}
	l1=$((1${l1#"$l2"} - g))
}

# both A B: limbs l of A, limbs m of B
both() {
	split "$2"
	m2=$l2 m1=$l1 m0=$l0
	split "$1"
}

le() {
	both "$1" "$2"
	[ 1 = "$((l2 - m2 ? l2 < m2 : l1 - m1 ? l1 < m1 : l0 <= m0))" ]
}

# sub A B: total=A-B
sub() {
	both "$1" "$2"
	l0=$((l0 - m0 + g))
	l1=$((l1 - m1 + g - 1 + l0 / g))
	l2=$((l2 - m2 - 1 + l1 / g))
	l0=$((l0 % g + g))
	l1=$((l1 % g + g))
	total=$l2${l1#1}${l0#1}
	total=${total#"${total%%[!0]*}"}
	total=${total:-0}
}

# add A B: total=A+B
add() {
	both "$1" "$2"
	m0=$((l0 + m0))
	m1=$((l1 + m1 + m0 / g))
	m2=$((l2 + m2 + m1 / g))
	l0=$((m0 % g + g))
	l1=$((m1 % g + g))
	total=$m2${l1#1}${l0#1}
	total=${total#"${total%%[!0]*}"}
	total=${total:-0}
}

# kib N: total=N*1024
kib() {
	total=$1
	for x in 1 2 3 4 5 6 7 8 9 10; do
		add "$total" "$total"
	done
}

# modulo N M: rest=N mod M, a power of two up to 2^24. These bits are correct
# even if 32-bit arithmetic overflows.
modulo() {
	split "$1"
	rest=$((((l2 * g + l1) * g + l0) & ($2 - 1)))
}

# power N MIN MAX: succeed if N is a power of two from MIN to MAX
power() {
	number "$1" && le "$2" "$1" && le "$1" "$3" && [ "$(($1 & ($1 - 1)))" -eq 0 ]
}

digest() {
	[ "${#1}" -eq 64 ] || return 1
	case $1 in *[!0-9a-f]*) return 1 ;; esac
}

# look [-L] FILE: read its type, owner, size and so on from ls
look() {
	# shellcheck disable=SC2046,SC2312 # to be fields, under set -f
	set -- $(ls -lind "$@" 2>/dev/null) '' '' '' '' '' '' ''
	# a device has major, minor in place of the length
	ino=$1 mode=$2 links=$3 uid=$4 gid=$5 length=$6 minor=$7
}

# here NAME: succeed if descriptor 3 is this file
here() {
	# shellcheck disable=SC3013 # the shells that are tested have -ef
	[ "$1" -ef /proc/self/fd/3 ]
}

# stamp: now=metadata of DEST that changes when DEST does
stamp() {
	now=$(stat -c '%d %i %s %z' "$dest" || ls -lindc "$dest")
} 2>/dev/null

# scratch: make a private directory, removed once its files are open
scratch() {
	for t in "${TMPDIR:-/dev/shm}" /dev/shm /tmp "${dest%/*}"; do
		t=$t/recv-hole.$$
		mkdir -- "$t" 2>/dev/null && tmp=$t && break
	done
	spool=$tmp/spool err=$tmp/err
	{ command exec 4<>"$spool" 6<>"$err"; } 2>/dev/null || die "no place for temporary files: set TMPDIR"
	if [ -n "$hashed" ]; then
		mkfifo -- "$tmp/lines" || die "can't make a fifo"
		$quick >"$tmp/sum" 2>/dev/null <"$tmp/lines" &
		exec 5>"$tmp/lines" 7<"$tmp/sum"
	fi
	# without /proc, the names are kept until the end
	[ -e /proc/self/fd/6 ] || return 0
	spool=/proc/self/fd/4 err=/proc/self/fd/6
	rm -rf -- "$tmp" && tmp=''
}

# broke MESSAGE: fail with the error of the last dd or mv
broke() {
	why=unknown
	while read -r t; do
		case $why$t in unknown*dd:* | unknownmv:*) why=${t##*: } ;; esac
	done <"$err"
	case $why in
	*"No space left"*) missing ;;
	unknown | *"oo large"*)
		t=$(ulimit -f)
		[ "$t" = unlimited ] || why="ulimit -f allows files of $t blocks only"
		;;
	esac
	bad "$1: $why"
}

# missing: add to why how much space is missing
missing() {
	# the fields after the seven words of the heading
	# shellcheck disable=SC2046,SC2312
	set -- $(df -Pk "${dest%/*}/" 2>/dev/null)
	number "${11-}" || set -- 1 2 3 4 5 6 7 8 9 10 0
	kib "${11}"
	room=$total
	sub "$size" "$off"
	le "$room" "$total" || return 0
	sub "$total" "$room"
	why="$why, at most $total bytes are missing"
	[ "$kind" != part ] || why="$why ($show.part may be removed)"
}

# moved N: check that the last dd moved N bytes, since it ignores short input
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

# pour N [operand..]: copy N bytes of standard input to DEST
pour() {
	t=$1
	shift
	$take seek="$pend" count="$t" "$@" >&3 2>"$err" ||
		broke "can't write $show"
	pend=0
}

# resize N: set the size of the file open as 3
resize() {
	dd bs=1 count=0 seek="$1" of="$fd" 0>&3 2>"$err" ||
		broke "can't make $show $1 bytes large"
}

# durable: wait until all data is on stable storage
durable() {
	[ -n "$nosync" ] || dd count=0 conv=fsync,notrunc </dev/null >&3 2>"$err" || broke "can't sync $show"
}

# pass N: skip N bytes of DEST
pass() {
	add "$pend" "$1"
	pend=$total
}

# zero N: write zeros over N bytes that may hold old data
zero() {
	if [ -n "$dev" ]; then
		zero_device "$1"
		return
	fi
	if [ -n "$zap" ]; then
		# the disk's last block is freed as a whole
		total=$1
		[ "$ahead" != "$size" ] || add "$1" 65536
		for t in "$total" "$1"; do
			$zap -o "$off" -l "$t" "$fd" 0>&3 >/dev/null 2>&1 && pass "$1" && return
		done
		zap=''
	fi
	pour "$1" if=/dev/zero
}

# zero_device N: unmap whole blocks, a limited number at a time
zero_device() {
	at=$off rest_of=$1
	modulo "$at" 4096
	[ "$rest" = 0 ] || blank "$((4096 - rest))"
	while le 4096 "$rest_of"; do
		t=1073741824
		if ! le "$t" "$rest_of"; then
			modulo "$rest_of" 4096
			sub "$rest_of" "$rest"
			t=$total
		fi
		blank "$t" whole
	done
	[ "$rest_of" = 0 ] || blank "$rest_of"
}

# blank N [whole]: zero N bytes at `at`. Punching frees space, blkdiscard -z may not.
blank() {
	piece=$1
	le "$piece" "$rest_of" || piece=$rest_of
	while [ "$#" = 2 ] && [ -n "$zap" ]; do
		$zap -o "$at" -l "$piece" "$fd" 0>&3 >/dev/null 2>&1 && break
		case $zap in
		fallocate*) zap='blkdiscard -z -p 134217728' ;;
		*) zap='' ;;
		esac
	done
	if [ "$#" = 2 ] && [ -n "$zap" ]; then
		pass "$piece"
	else
		pour "$piece" if=/dev/zero
	fi
	add "$at" "$piece"
	at=$total
	sub "$rest_of" "$piece"
	rest_of=$total
}

# held MAJOR:MINOR: succeed if it is mounted, in use for swap, or part of another device
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
	# mountinfo does not show the devices of btrfs
	set -- /sys/dev/block/"$1"/holders/* /sys/fs/btrfs/*/devices/"$z"
	set -f
	for x; do
		[ ! -e "$x" ] || return 0
	done
	return 1
} 2>/dev/null

# device: had=its length. Refuse it if it, its disk or a partition is in use.
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
	# in sectors of 512 bytes
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

# mount_id: id=the mount id of the file open as 3
mount_id() {
	id=''
	while read -r x y; do
		[ "$x" != mnt_id: ] || id=$y
	done </proc/self/fdinfo/3
	[ -n "$id" ]
} 2>/dev/null

# guest: succeed if a running QEMU writes to DEST. Descriptor 3 is in the same
# mount. QEMU locks byte 100 + n for each permission n that it uses: 0 is to
# read, 1 to 3 are to change the file. For a write in place, readers count too.
guest() {
	mount_id || return 1
	z=none
	while read -r x y t y; do
		[ "$x" != "$id" ] || z=$t
	done </proc/self/mountinfo
	look "$dest"
	id=$(printf '%02x:%02x:%s' "${z%:*}" "${z#*:}" "$ino")
	while read -r x y t t t z; do
		# adjacent locks are one line
		case "$y $z" in
		"OFDLCK $id 10"[1-3]' '* | "OFDLCK $id 100 10"[1-7]) return 0 ;;
		"OFDLCK $id "[12]0[0-7]' '*) [ "$kind" != place ] || return 0 ;;
		esac
	done </proc/locks
	return 1
} 2>/dev/null

# writer: succeed if another program has DEST open for writing; why=its name. One
# grep searches /proc. No other file is opened, except in DEST's mount on old
# systems.
writer() {
	t=''
	{
		while read -r x y; do
			case $x in mnt_id: | ino:) t=$x.$y ;; esac
		done </proc/self/fdinfo/3
	} 3<"$dest"
	[ -n "$t" ] && have grep && read -r self x </proc/self/stat || return 1
	set +f
	# a list of all processes may be too long for one command
	t=$(for z in 1 2 3 4 5 6 7 8 9; do grep -rlxs "$t" /proc/"$z"*/fdinfo; done)
	set -f
	y=$IFS IFS='
'
	# shellcheck disable=SC2086 # to be split into lines
	set -- $t
	IFS=$y
	for t; do
		x=${t#/proc/}
		x=${x%%/*}
		# shellcheck disable=SC3013
		[ "$dest" -ef "/proc/$x/fd/${t##*/}" ] || continue
		# children of this shell inherit it
		z=$x
		while [ "$z" != "$self" ] && [ "$z" -gt 1 ]; do
			read -r y <"/proc/$z/stat" || break
			y=${y##*') '}
			y=${y#* }
			z=${y%% *}
		done
		[ "$z" != "$self" ] || continue
		while read -r y z; do
			case $y$z in flags:*[1256])
				read -r y <"/proc/$x/comm"
				why="open for writing by process $x ($y)"
				return
				;;
			esac
		done <"$t"
	done
	return 1
} 2>/dev/null

# used: succeed if another program writes to DEST; why=which one
used() {
	if [ "$kind" = place ]; then
		why='in use by a running QEMU'
		! guest || return 0
	else
		[ -f "$dest" ] || return 1
		why='being written by another receiver'
		# a receiver that ends, or udev
		! have flock || ! [ -r "$dest" ] || flock -ns 0 <"$dest" 2>/dev/null ||
			{ sleep 1 && flock -ns 0 <"$dest"; } 2>/dev/null || return 0
		why='in use by a running QEMU'
		for z in "$dest" "${dest%/*}/"; do
			# one of the two may be unreadable
			{ ! guest 3<"$z"; } 2>/dev/null || return 0
		done
	fi
	set +f
	set -- /sys/block/loop*/loop/backing_file
	set -f
	for x; do
		t=''
		{ IFS= read -r t <"$x"; } 2>/dev/null
		x=${x#/sys/block/}
		why="attached as the loop device ${x%%/*}"
		# shellcheck disable=SC3013
		[ ! "$dest" -ef "$t" ] || return 0
	done
	# the name may be of another mount, or outdated
	t=$(losetup -j "$dest" 2>/dev/null)
	why="attached as the loop device ${t%%:*}"
	[ -z "$t" ] || return 0
	# another receiver may be about to end
	[ -f "$dest" ] && writer && sleep 1 && writer
}

# unused: refuse a DEST that is being written to or that can't be replaced
unused() {
	if [ "$kind" = part ] && [ -e "$dest" ]; then
		t=''
		{ mount_id 3<"$dest" && t=$id && mount_id 3<"${dest%/*}/" || t=''; } 2>/dev/null
		[ -z "$t" ] || [ "$t" = "$id" ] ||
			die "$show can't be renamed over: it is a mount point (--in-place writes in place)"
	fi
	[ -z "$force" ] && used || return 0
	t="$show is $why (--force writes it all the same)"
	case $why in
	*receiver) fault=again die "$t" ;;
	*) die "$t" ;;
	esac
}

# resolve: determine the kind of DEST, following links
resolve() {
	show=$dest
	case $dest in
	-) kind=pipe && return ;;
	/*) ;;
	*) dest=./$dest ;;
	esac
	if [ -h "$dest" ] && [ ! -c "$dest" ] && [ ! -p "$dest" ]; then
		t=$(readlink -fn -- "$dest" 2>/dev/null && printf x) || {
			readlink -fn / >/dev/null 2>&1 || die "can't follow the link $show: needs readlink -f"
			die "the link $show leads nowhere: to itself, or to a directory that isn't there"
		}
		dest=${t%x} show=${t%x}
	fi
	kind=part
	if [ -b "$dest" ]; then
		kind=place dev=1
	elif [ -c "$dest" ] || [ -p "$dest" ]; then
		kind=pipe
	elif [ -f "$dest" ]; then
		kind=${inplace:-part}
	elif [ -d "$dest" ]; then
		die "$show is a directory: name the file in it"
	elif [ -e "$dest" ]; then
		die "$show is no file and no device"
	else
		t=$(cd -P "${dest%/*}/" 2>/dev/null && pwd -P)
		case $t/ in
		/dev/shm/*) ;;
		/dev/*) die "$show is no device, and a file is not made there" ;;
		esac
	fi
	former
}

# former: read the attributes of the existing DEST
former() {
	old='' others=''
	[ -f "$dest" ] || return 0
	look "$dest"
	old=${uid}:$gid perm=$mode had=$length
	[ "$links" = 1 ] || others=1
}

# becomes: becomes=the outcome for DEST as a word, t=as text
# shellcheck disable=SC2034 # far-end.sh sends it
becomes() {
	case $kind$dev$old in
	part) becomes=new t='a new raw image' ;;
	part*) becomes=replaces t='a raw image that replaces the file there' ;;
	place1*) becomes=device t='the device, in place' ;;
	place*) becomes=in-place t='a raw image, updated in place' ;;
	*) becomes=stream t='a stream of bytes' ;;
	esac
}

# folder: refuse a DEST whose directory does not exist
folder() {
	[ "$kind" != part ] || [ -d "${dest%/*}/" ] || die "no such directory: ${dest%/*}/"
}

# odd: refuse a .part that is no regular file, even with --force
odd() {
	case $mode in
	'' | -*) return 0 ;;
	l*) t='symbolic link' ;;
	d*) t=directory ;;
	p*) t=fifo ;;
	s*) t=socket ;;
	*) t=device ;;
	esac
	die "$show.part is a $t, where the new file is written first: remove or rename it"
}

# leftover: refuse a .part that was not left by a receiver. A receiver marks it by
# .part.lines, which begins with a fixed word and the inode, or by an attribute.
leftover() {
	look "$part"
	# an empty file can be replaced
	odd
	case ${force}$mode:$length in
	-*:0) return 0 ;;
	-*) ;;
	*) return 0 ;;
	esac
	t=''
	[ ! -f "$part.lines" ] || { read -r t <"$part.lines"; } 2>/dev/null
	case $t in XFER-HOLE*" $ino") return 0 ;; esac
	t=$(getfattr --absolute-names --only-values -n user.xfer-hole.part "$part" 2>/dev/null)
	[ "${t%% *}" = 1 ] || die "$show.part is another program's file: remove it (--force replaces it)"
}

# mark: mark .part as a receiver's
mark() {
	unmark
	# noclobber minds files alone, and would follow a link to a device
	[ ! -e "$part.lines" ] && [ ! -h "$part.lines" ] || return 0
	set -C
	{ echo "XFER-HOLE-PART 1 inode $ino" >"$part.lines"; } 2>/dev/null || :
	set +C
}

unmark() {
	for x in "$part.lines" "$part.next"; do
		t=''
		[ ! -f "$x" ] || { read -r t <"$x"; } 2>/dev/null
		case $t in XFER-HOLE*) rm -f -- "$x" 2>/dev/null ;; esac
	done
}

# same: fail unless .part is the file open as 3
same() {
	look "$part"
	case ${mode}:$links in
	-*:1) [ "$fd" = "$part" ] || here "$part" ;;
	*) false ;;
	esac || die "$show.part was replaced, or is not a plain file of one link"
}

lock() {
	fd=/proc/self/fd/0 tries=0
	[ -e /proc/self/fd/3 ] || fd=$x
	# without flock(1), two receivers do not exclude each other
	! have flock || until flock -n 0 0>&3 2>/dev/null; do
		# udev locks a device for a moment
		tries=$((tries + 1))
		[ "$dev" = 1 ] || tries=3
		[ "$tries" -lt 3 ] || fault=again die "$t is in use by another receiver, or a reader"
		sleep 1
	done
	# DEST may have changed before it was locked
	[ "$kind" != part ] || same
}

# attach FILE NAME: open it as descriptor 3
attach() {
	{ command exec 3<>"$1"; } 2>/dev/null && return
	z=$(dd of="$1" conv=notrunc count=0 </dev/null 2>&1) && z='not permitted to read it'
	die "can't open $2: ${z##*: }"
}

grab() {
	# far-end.sh has locked it already
	{ [ -n "$locked" ] && here "$x"; } || attach "$x" "$t"
	lock
}

# uncreated: fail with the reason why .part can't be created, or with $1
# return if it can: test -w knows no ACL in some shells
uncreated() {
	if x=$(mkdir -- "$part" 2>&1 && rmdir -- "$part" 2>&1); then
		[ -n "${1-}" ] || return 0
		x=$1
	fi
	t="can't create $show.part: ${x##*: }"
	[ -z "$old" ] || t="$t (--in-place writes in place)"
	die "$t"
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
		# the leftover may belong to another user
		look "$part"
		case $mode in
		-*)
			grab
			leftover
			rm -f -- "$part" 2>/dev/null
			look "$part"
			;;
		esac
		odd
		t=$show.part x=$part
		# noclobber follows no link and opens no existing file
		set -C
		{ [ -z "$mode" ] && command exec 3>"$part"; } 2>/dev/null || uncreated "another has made it"
		set +C
		lock
		left="; kept $show.part"
		# another receiver may have had it, and have ended
		[ "$length" = 0 ] || resize 0
		chmod 600 "$fd" 0>&3
		mark
		# DEST may have changed before .part was locked
		former
		[ -z "$old" ] || nocow
		resize "$size"
		[ -z "$others" ] || warn "$show: the old disk had other names (hard links), and stays there"
		return
		;;
	esac
	grab
	claim
	zap='fallocate -p'
	[ -z "$dev" ] || le "$size" "$had" || bad "$show is too small: $had bytes for a disk of $size"
}

# claim: check that the open DEST may be written in place; had=its length
claim() {
	[ "$fd" != "$dest" ] || die "$show can't be written in place: needs /proc"
	look -L "$fd" 0>&3
	had=$length
	here "$dest" || mode=''
	case $dev$mode in
	1b*) device ;;
	-*) ;;
	*) die "$show was replaced" ;;
	esac
	unused
	have flock || warn "needs flock to keep readers and other receivers away from $show"
}

# begin: a DEST written in place changes from here on
begin() {
	[ "$kind$begun" = place ] || return 0
	begun=1
	[ -n "$dev" ] || le "$size" "$had" || resize "$size"
	left="; $show is not whole now"
}

# next: read the next line, or return the last one again; fail at a truncation
next() {
	[ -z "$again" ] || {
		again=''
		return 0
	}
	line=
	IFS= read -r line 2>/dev/null && return
	[ -z "$line" ] || bad "stream cut in a line"
	if [ -n "$poured" ] && ! moved "$poured"; then
		rec=$((rec - 1)) off=$start
		bad "stream cut in DATA"
	fi
	bad "stream cut before END"
}

opening() {
	rec=0 off=0 pend=0 prev='' poured='' base='' kept='' log='' begun='' now='' was=''
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
	[ -n "$quick" ] || bad "digests need openssl, sha256sum or shasum (--skip-hash skips them)"
}

basis() {
	rec=0
	d=${n#* } base=${n%% *}
	[ "$line" = "BASE $base" ] || digest "$d" || bad "bad digest in BASE"
	[ "$base" = 0 ] || number "$base" || bad "bad size in BASE"
	[ "$line" = "BASE $base" ] || bad "can't check that $show is the older disk (xfer-hole --trust-base sends unchecked)"
	stamp
	was=$now
	[ -n "$had" ] || bad "BASE, but there is no $show: parts of the older disk are needed (send the whole disk instead)"
	le "$base" "$had" || bad "$show is smaller than BASE"
	rec=1
}

# cover WORD N: check the length and offset of a record
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
	# buffered, since printf may be a process
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
	DATA:DATA:[!0]*) bad "DATA follows DATA inside an interval" ;;
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
	# openssl starts more slowly, and is faster from 1 MB on
	t=$quick
	[ "${#n}" -lt 7 ] || t=${strong:-"$quick"}
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
		"FAIL "*)
			[ "${#n}" -le 900 ] || bad "FAIL is too long"
			case $n in '' | *[!\ -~]*) bad "bad text in FAIL" ;; esac
			bad "sender gave up: $n"
			;;
		*) bad "not a line of the protocol" ;;
		esac
		[ "$line" = WAIT ] || prev=${line%% *}
		off=$ahead
		rec=$((rec + 1))
	done
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
	[ "$t" -eq 0 ] || bad "bytes after END"
	begin
}

publish() {
	case $kind$dev in
	pipe) return ;;
	place) le "$had" "$size" || resize "$size" ;;
	place1) [ "$had" = "$size" ] || warn "$show is larger: what is behind $size bytes was left" ;;
	esac
	# sync the data before the final mode is set
	durable
	if [ "$kind" = place ]; then
		here "$dest" || die "$show was replaced or removed while it was written"
		return
	fi
	give
	durable
	[ ! -d "$dest" ] || die "$show is a directory now"
	[ -z "$kept" ] || stamp
	[ "$now" = "$was" ] || die "$show changed while parts of it were kept"
	unused
	whole
	$move -- "$part" "$dest" 2>"$err" || broke "can't rename over $show (--in-place writes in place)"
	left=", though $show has been replaced"
	[ "$fd" = "$part" ] || here "$dest" || die "$show is another file than was written"
	[ -n "$nosync" ] || sync ${dir:+"$dir"} 2>/dev/null || die "can't sync its directory"
	clear
}

# clear: remove the side files. The rename has released the lock of .part, so they
# may belong to another receiver, unless .part can be locked again.
clear() {
	[ -e "$part.lines" ] || [ -e "$part.next" ] || return 0
	t=1
	set -C
	{ command exec 3>"$part"; } 2>/dev/null || t=''
	set +C
	[ -n "$t" ] || return 0
	! have flock || flock -n 0 0>&3 2>/dev/null || return 0
	[ "$fd" = "$part" ] || here "$part" || return 0
	unmark
	rm -f -- "$part" 2>/dev/null
}

# whole: fail unless .part is the file open as 3, with the disk's size
whole() {
	same
	[ "$length" = "$size" ] || die "$show.part has not the disk's size"
}

# give: set the owner and mode of the old DEST on .part
give() {
	whole
	oct='=rw'
	if [ -n "$old" ]; then
		oct='' group=7 others=7 most=7
		chown "$old" "$fd" 0>&3 2>/dev/null || {
			warn "can't give $show its old owner $old"
			most=0
			# another group does not get the old group's permissions
			chown ":${old#*:}" "$fd" 0>&3 2>/dev/null || group=0
		}
		inherit
		for x in "${perm#?}" "${perm#????}" "${perm#???????}"; do
			case $x in r*) b=4 ;; *) b=0 ;; esac
			case $x in ?w*) b=$((b + 2)) ;; esac
			case $x in ??[xst]*) b=$((b + 1)) ;; esac
			# the old owner and group members count as others now
			case $oct in
			'') most=$((most | b)) ;;
			?)
				b=$((b & most))
				[ "$group" = 7 ] || most=$b b=0
				;;
			*) b=$((b & most & others)) ;;
			esac
			oct=$oct$b
		done
	fi
	umask "$mask"
	$also
	chmod "$oct" "$fd" 0>&3 2>/dev/null || die "can't set the mode of $show.part"
}

# exact: check that $take reads the exact number of bytes from a pipe, and seeks
# relative to the offset of descriptor 3
exact() {
	t=$(printf abcd | { $take seek=0 count=1 && $take seek=0 count=2; } 2>/dev/null)
	[ "$t" = abc ] || return 1
	# unknown without /proc
	{ command exec 3</proc/self/exe; } 2>/dev/null || return 0
	$take seek=3 count=0 </dev/null 1<&3 2>/dev/null
	$take seek=4 count=0 </dev/null 1<&3 2>/dev/null
	read -r t x </proc/self/fdinfo/3
	exec 3>/dev/null
	[ "$x" = 7 ]
}

# inherit: copy ACL, attributes and label of the old DEST, adding no permissions
inherit() {
	lost='' x=/proc/self/fd/9
	[ "$fd" != "$part" ] || x=$part
	if have getfacl && have setfacl; then
		t=$(getfacl -cpnE "$dest" 2>/dev/null)
		case $t in
		*mask:*) printf '%s\n' "$t" | setfacl --set-file=- "$x" 9>&3 ;;
		# it may have one from the directory
		*) setfacl -b "$x" 9>&3 || : ;;
		esac 2>/dev/null || lost=' ACL (its group gets no rights)'
	else
		look "$part"
		case $perm$mode in *+*) lost=' ACL (its group gets no rights)' ;; esac
	fi
	# the ACL may have denied access
	[ -z "$lost" ] || group=0 others=0
	if have getfattr && have setfattr && [ "$x" != "$part" ]; then
		t=$(getfattr -d -e hex -m '^(user[.]|security[.]selinux$)' --absolute-names "$dest" 2>/dev/null)
		[ -z "$t" ] || printf '%s\n' "$t" | attributes | setfattr --restore=- 9>&3 2>/dev/null || lost="$lost attributes"
	fi
	if [ -e /sys/fs/selinux/enforce ] && have chcon; then
		chcon --reference="$dest" "$fd" 0>&3 2>/dev/null || lost="$lost label"
	fi
	[ -z "$lost" ] || warn "can't give $show what it had:$lost"
}

# attributes: getfattr's output for another file, without xfer-hole's own
attributes() {
	printf '# file: %s\n' "$x"
	while read -r t; do
		case $t in
		'#'* | user.xfer-hole.*) ;;
		*) printf '%s\n' "$t" ;;
		esac
	done
}

# nocow: copy the nocow flag of DEST while .part is empty
nocow() {
	t=$(lsattr -d "$dest" 2>/dev/null)
	case ${t%% *} in
	*C*) chattr +C "$part" 2>/dev/null || warn "can't give $show what it had: no copy-on-write" ;;
	esac
}

tools() {
	for t in ls mkdir mkfifo rm mv chmod chown wc sync; do
		have "$t" || die "needs $t"
	done
	y=$IFS IFS=: x='dd:busybox dd:gnudd'
	for t in $PATH; do
		case $t in /*) x=$x:$t/dd ;; esac
	done
	# shellcheck disable=SC2086 # to be split at colons
	set -- $x
	IFS=$y
	for dd in "$@" ''; do
		[ -n "$dd" ] || die "needs a dd that reads count bytes and no more, and seeks from where it is: GNU's or busybox's (that of uutils can't)"
		take="$dd bs=524288 iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc"
		! exact || break
	done
	case $dd in
	dd) ;;
	*)
		dd() {
			command $dd "$@"
		}
		;;
	esac
	sparse='bs=4096 conv=sparse'
	dd conv=sparse count=0 </dev/null >/dev/null 2>&1 || sparse=''
	quick='' strong=''
	have shasum && quick='shasum -a 256'
	have openssl && quick='openssl dgst -sha256 -r' strong=$quick
	have sha256sum && quick=sha256sum
}

ready() {
	set -fu
	g=1000000000
	mask=$(umask)
	umask 077
	unset BLOCK_SIZE BLOCKSIZE LS_BLOCK_SIZE
	LC_ALL=C IFS=$(printf ' \t')
	export LC_ALL
	# limit the memory that an endless line can take
	# shellcheck disable=SC3045 # without -v there is no limit
	{ ulimit -v 524288; } 2>/dev/null || :
	exec 3>/dev/null
	# dd reports the reason
	trap '' XFSZ
	force='' others='' dry='' again='' locked=''
	inplace='' skip='' nosync='' dev='' old='' had='' also=: move='mv -f'
}

receive() {
	opening
	rec=1
	# checked before the stream goes on
	part=$dest.part
	[ "$kind" != part ] || [ -w "${dest%/*}/" ] || uncreated
	next
	n=${line#* }
	# BASE is checked before a file is created
	case $kind$line in
	partBASE*) basis ;;
	*) again=1 ;;
	esac
	scratch
	target
	# sync with a name reports errors
	dir=${dest%/*}/
	[ "$nosync$kind" != part ] || sync "$dir" 2>/dev/null || dir=''
	records
	ending
	publish
	code=0
}

# option WORD: apply it, or its first letter
option() {
	case $1 in
	--in-place) inplace=place ;;
	-f* | --force) force=1 ;;
	-n* | --dry-run) dry=1 ;;
	--skip-hash) skip=1 ;;
	--no-sync) nosync=1 ;;
	-h* | --help)
		printf '%s\n' "$help"
		code=0
		exit
		;;
	-i*) misused "unknown option $1 (did you mean --in-place?)" ;;
	-s*) misused "unknown option $1 (did you mean --skip-hash?)" ;;
	*) misused "unknown option $1 (recv-hole, the program, has more options)" ;;
	esac
}

# misused TEXT: fail with a usage error
misused() {
	printf '%s\n\n' "$help" >&2
	die "$1"
}

# formats: warn if the name is of another format than raw
formats() {
	case $kind$dest in
	part*.qcow2 | part*.qcow | part*.qed | part*.vmdk | part*.vdi | part*.vhdx | part*.vhd | part*.vpc)
		warn "warning: $show: becomes a raw image, though its name says ${dest##*.} (call it .img, and convert it with qemu-img)"
		;;
	esac
}

# rehearse: dry run: make the checks of receive without a stream
rehearse() {
	case $kind in
	pipe) ;;
	place)
		t=$show x=$dest
		grab
		claim
		;;
	part)
		unused
		part=$dest.part
		[ ! -f "$part" ] || [ ! -r "$part" ] || ! have flock || flock -ns 0 <"$part" 2>/dev/null ||
			fault=again die "$show.part is in use by another receiver"
		leftover
		x=${dest%/*}/
		if [ ! -w "$x" ] || [ ! -x "$x" ]; then
			t="can't write in $x"
			[ -z "$old" ] || t="$t (--in-place writes in place)"
			die "$t"
		fi
		;;
	esac
	becomes
	warn "would write $show, $t"
	code=0
}

main() {
	ready
	while
		case ${1-} in
		--)
			shift
			false
			;;
		-?*) ;;
		*) false ;;
		esac
	do
		option "$1"
		case $1 in
		-[!-]?*)
			# combined letters
			t=-${1#-?}
			shift
			set -- "$t" "$@"
			;;
		*) shift ;;
		esac
	done
	[ "$#${1:+x}" = 1x ] || misused "one DEST is needed, after the options"
	dest=$1
	tools
	resolve
	folder
	formats
	if [ -n "$dry" ]; then
		rehearse
		exit
	fi
	[ "$kind" != part ] || unused
	receive
}

# what stands above is taken by far-end.sh
main "$@"
