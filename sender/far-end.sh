# shellcheck shell=sh
# shellcheck disable=SC2250,SC2249 # size: no idle braces, no empty cases
# shellcheck disable=SC2154,SC2034,SC2317 # the script, in front as `script`, sets, reads and calls the rest
# shellcheck disable=SC2015 # each command before || may fail
# far-end.sh: receives an image by the sender's request, and sends replies.
#
# It is used where recv-hole is not installed. The shell reads it from standard
# input, and the stream follows. It runs as three processes: the first waits for
# the others and reports the result; `work` receives, by the functions of
# recv-hole.sh; `watch` sends WAIT, and ends a dead connection. They share:
#   asked own bits patience   the request's options
#   target                    DEST, or the name in it

fail() {
	printf 'FAIL %.900s\n' "$1"
	exit 2
}

# decode CODED: word=the decoded text, including newlines at its end
decode() {
	case $1 in *[!A-Za-z0-9/._,+:@%=\\-]*) fail "a word of the request is not coded" ;; esac
	word=$(printf %bx "$1")
	case $word in *x) word=${word%x} ;; *) fail "the locale of sh there can't hold the name $1" ;; esac
}

asked() {
	case $asked in *" $1 "*) ;; *) return 1 ;; esac
}

# request 1 LEN OPTION.. -- DEST NAME: parse the request
request() {
	[ "$1" = 1 ] || fail "the request is of another version"
	shift 2
	asked=' ' own='' bits='' source='' patience=60 bytes=0 data='' older=''
	while [ "$1" != -- ]; do
		x=$1
		decode "$x"
		shift
		case $word in
		receiver=auto | receiver=sh) ;;
		receiver=binary) fail "no recv-hole is installed there that speaks this version" ;;
		private) umask 077 ;;
		in-place | target-is-zero | discard | no-sync | direct | remember | read-back | check-base | no-clobber | force | mkpath | delta | dry-run) asked="$asked$word " ;;
		chmod=*[!0-7]* | max-wait=*[!0-9]* | size=*[!0-9]* | data=*[!0-9]* | base=*[!0-9]*) fail "no number in the request: $x" ;;
		chmod=?*) bits=${word#*=} ;;
		chown=?*) own=${word#*=} ;;
		max-wait=[1-9]*) patience=${word#*=} ;;
		source=?*) source=${word#*=} ;;
		size=?*) bytes=${word#*=} ;;
		data=?*) data=${word#*=} ;;
		base=?*) older=${word#*=} ;;
		base-digest=?*) ;;
		*) fail "unknown option in the request: $x" ;;
		esac
	done
	decode "$3"
	name=$word
	decode "$2"
	target=$word
	case $target in -*) target=./$target ;; esac
	inside=''
	if [ -d "$target" ]; then
		inside=directory target=${target%/}/$name
	else
		case $target in */) inside=directory target=$target$name ;; esac
	fi
	! asked check-base || fail "recv-hole.sh can't read what is there: --check-base needs recv-hole"
}

# former: read the attributes of the existing file. In a directory, a file that
# was made from an image of another name is refused, and so is one whose origin
# is unknown (no attributes can be read), unless it has the image's name.
former() {
	plain_former
	[ -n "$inside" ] && [ -n "$source" ] && [ -n "$old" ] && ! asked force || return 0
	x=$(getfattr --only-values -n user.xfer-hole.source -- "$dest" 2>/dev/null) || x=''
	y=$x
	[ -n "$x" ] || y=${target##*/}
	# an error of the test refuses
	if [ "$y" = "$source" ]; then
		return 0
	fi
	t="is not known to be made from $source"
	[ -z "$x" ] || t="was made from $x, and $source would replace it"
	die "$show is there already, and $t: name the file instead of its directory, or use --force"
}

# fell PID: kill a process and its children
fell() {
	kill -STOP "$1" || return 0
	kids=''
	read -r kids <"/proc/$1/task/$1/children"
	for kid in $kids; do
		fell "$kid"
	done
	kill -KILL "$1"
} 2>/dev/null

# cease TEXT: end the transfer with this failure
cease() {
	fell "$work"
	fell "$watch"
	fail "$1"
}

# family PID: list its descendants; now=the bytes that they have read, their
# states and the processor time that they used
family() {
	kids='' n='' t=''
	read -r x n <"/proc/$1/io"
	read -r t <"/proc/$1/stat"
	read -r kids <"/proc/$1/task/$1/children"
	now="$now $1:$n:$t"
	for kid in $kids; do
		all="$all $kid"
		family "$kid"
	done
} 2>/dev/null

# silent: succeed if `work` waits for bytes of the stream. Its dd then reads from
# the pipe that `work` has open. Its other children work on the disk, except the
# one that hashes the lines.
silent() {
	[ -r "/proc/$work/io" ] && [ -r "/proc/$work/task/$work/children" ] || return 1
	all='' now=''
	family "$work"
	[ "$now" = "$before" ] || {
		before=$now
		return 1
	}
	# shellcheck disable=SC2012 # the link's target is at the end of the line
	pipe=$(ls -l "/proc/$work/fd/0") busy=''
	for x in $all; do
		# shellcheck disable=SC2012
		link=$(ls -l "/proc/$x/fd/0") what=''
		read -r what <"/proc/$x/stat"
		case ${link##* -> }:$what in
		*/lines*:*) ;;
		"${pipe##* -> }":*"dd) S "* | "${pipe##* -> }":*"(busybox) S "*) return 0 ;;
		*) busy=1 ;;
		esac
	done
	[ -z "$busy" ]
} 2>/dev/null

# halted: succeed if `work` or a descendant is stopped
halted() {
	for x in $work $all; do
		what=''
		read -r what <"/proc/$x/stat"
		case ${what##*\)} in ' T '* | ' t '*) return 0 ;; esac
	done
	return 1
} 2>/dev/null

# waits: the message for the silence
waits() {
	x=''
	read -r x <"/proc/$work/wchan"
	case $x in
	fifo_open | wait_for_partner) why="nobody has opened the fifo to read it for $patience seconds" ;;
	*) why="nothing came for $patience seconds: the link is taken for dead" ;;
	esac
} 2>/dev/null

# orphan: succeed if the first process has ended. (Its pid may be in use again.)
orphan() {
	what=") ? $$ "
	read -r what </proc/self/stat
	case ${what##*\)} in ' '?" $$ "*) return 1 ;; esac
} 2>/dev/null

watch() {
	trap '' PIPE
	said=0 still=0 halt=0 before='' all='' tick=5
	[ "$patience" -ge 30 ] || tick=1
	often=15
	[ "$patience" -ge 45 ] || often=$((patience / 3))
	# a sleep that outlives this must not hold the connection open
	while sleep "$tick" >/dev/null 2>&1 && ! orphan; do
		still=$((still + tick)) said=$((said + tick)) halt=$((halt + tick))
		silent || still=0
		if halted; then
			# without progress no WAIT is sent
			still=0
			[ "$halt" -lt "$patience" ] || kill -USR2 "$$"
			continue
		fi
		halt=0
		[ "$said" -lt "$often" ] || {
			said=0
			printf 'WAIT\n' 2>/dev/null || kill -HUP "$$"
		}
		[ "$still" -lt "$patience" ] || kill -USR1 "$$"
	done
	fell "$work"
}

# adorn: set the requested owner and mode, before .part is renamed
adorn() {
	[ -z "$own" ] || x=$(chown -- "$own" "$fd" 0>&3 2>&1) || die "can't give $show to $own: ${x#*: }"
	[ -z "$source" ] || setfattr -n user.xfer-hole.source -v "$source" "$fd" 0>&3 2>/dev/null
	oct=${bits:-$oct}
}

# settle -- PART DEST: rename without replacing a file
settle() {
	ln -- "$2" "$3" 2>/dev/null && rm -f -- "$2" && return
	{ [ ! -e "$3" ] && [ ! -h "$3" ]; } || die "$show is there already"
	mv -n "$@" && [ ! -e "$2" ]
}

# path: create DEST's directory, or in a dry run check that it can be created
path() {
	dir=${dest%/*}/
	case $dest in */*) ;; *) dir=./ ;; esac
	[ ! -d "$dir" ] || return 0
	case $dir in
	/dev/shm/*) ;;
	/dev/*) die "$show is no device, and a file is not made there" ;;
	esac
	asked mkpath || fault=mkpath die "no such directory: $dir"
	if asked dry-run; then
		while [ ! -e "$dir" ]; do
			x=${dir%/} dir=./
			case $x in */*) dir=${x%/*}/ ;; esac
		done
	else
		x=$(umask "$mask" && mkdir -p -- "$dir" 2>&1) || die "can't make the directory $dir: ${x##*: }"
	fi
}

# room: in a dry run, check the free space for the expected data
room() {
	have df && number "$data" || return 0
	free=$(df -P -k -- "$dir" 2>/dev/null | { read -r y && IFS=' ' read -r y y y y z && printf %s "$y"; })
	case $free in '' | *[!0-9]*) return 0 ;; esac
	# an interrupted transfer would be resumed
	x=$(du -k -- "$dest.part" 2>/dev/null)
	x=${x%%[!0-9]*}
	add "$free" "${x:-0}"
	kib "$total"
	le "$data" "$total" || die "$dir has $total bytes of free space, and the disk has $data bytes of data"
}

# known: check that the requested user and group exist
known() {
	have find && [ -n "$own" ] || return 0
	x=${own%%:*}
	[ -z "$x" ] || find / -prune -user "$x" >/dev/null 2>&1 || die "there is no user $x"
	case $own in
	*:*) find / -prune -group "${own#*:}" >/dev/null 2>&1 || die "there is no group ${own#*:}" ;;
	esac
}

# probe: check that DEST can be written, without changing it
probe() {
	if [ "$kind" != part ]; then
		[ -z "$own$bits" ] || [ "$kind$dev" = place ] || die "$show is a device: it keeps its owner and mode"
		[ "$kind" = place ] || return 0
		# queue keeps it open
		attach "$dest" "$show"
		unused
		[ -n "$dev" ] || return 0
		device
		le "$bytes" "$had" || die "$show is too small: $had bytes for a disk of $bytes"
		return
	fi
	unused
	part=$dest.part
	leftover
	x=${dest%/*}/
	[ ! -d "$x" ] || dir=$x
	if [ -e "$part" ] || [ -h "$part" ] || asked dry-run; then
		[ -w "$dir" ] && [ -x "$dir" ] || die "can't write in $dir"
		room
		known
		# -w may succeed for root on a read-only file system; no file is left
		[ -e "$part" ] || [ -h "$part" ] || x=$(rmdir -- "$part" 2>&1) || case $x in
		*[Rr]ead-only*) die "can't write in $dir: read-only file system" ;;
		esac
	elif (set -C && : >"$part") 2>/dev/null; then
		oct='' fd=$part
		(adorn)
		x=$?
		rm -f -- "$part"
		code=3
		[ "$x" = 0 ] || exit
		code=2
	else
		x=$(mkdir -- "$part" 2>&1)
		die "can't create $show.part: ${x##*: }"
	fi
}

# queue: lock the file that another receiver may be writing; it stays open as 3.
# It waits for a receiver with a dead connection, and refuses if one is active.
# It returns false if DEST may have changed since it was examined.
queue() {
	file=${part:-"$dest"} waited=''
	have flock && [ -e "$file" ] && [ "$kind" != pipe ] || return 0
	# anything but a file as .part is refused later, and not opened
	[ -z "$part" ] || { [ -f "$file" ] && [ ! -h "$file" ]; } || return 0
	{ command exec 3<>"$file"; } 2>/dev/null || return 0
	until flock -n 0 0>&3 2>/dev/null; do
		x=$dest dest=$file
		stamp
		dest=$x
		[ "$turn" = 0 ] || [ "$now" = "$was" ] || fault=again die "$file is being written by another receiver"
		was=$now turn=$((turn + 1)) waited=1
		if [ "$turn" -ge 45 ] || asked dry-run; then
			fault=again die "$file is in use by another receiver"
		fi
		sleep 2
	done
	locked=1
	[ -z "$waited" ] || return 1
	# unknown without /proc
	[ ! -e /proc/self/fd/3 ] || here "$file"
}

# examine: examine DEST, before and after waiting for the lock
examine() {
	dest=$target show=$target dev='' had='' locked='' part=''
	if asked no-clobber && { [ -e "$dest" ] || [ -h "$dest" ]; }; then
		die "$show is there already"
	fi
	path
	resolve
	case $kind$dest in
	part/dev/shm/*) ;;
	part/dev/*) die "$show is no device, and a file is not made there" ;;
	esac
	if asked target-is-zero && [ -z "$dev" ]; then
		die "$show is no block device, which --target-is-zero is for"
	fi
	probe
}

# script: load recv-hole.sh up to its marker line. The functions that resume.sh
# replaces are renamed.
script() {
	set -f
	text='' IFS='
'
	for x in ${script%"# what stands above is taken by far-end.sh"*}; do
		case $wrapped in *" ${x%"() {"} "*) x=plain_$x ;; esac
		text=$text$x$IFS
	done
}

work() {
	script
	eval "$text"
	say() {
		printf '%s %.900s\n' "$answer" "$1"
	}
	die() {
		answer=FAIL t=${1%" (--skip-hash skips them)"}
		[ "$t" = "$1" ] || set -- "$t (--no-hash sends none)"
		# FAIL starts with its kinds, for programs
		fault=$fault${left:+ left}
		case $fault$1 in "("*) fault=none ;; esac
		[ -z "$fault" ] || set -- "(${fault# }) $1"
		warn "$1$left"
		code=3
		exit 3
	}
	answer=NOTE part='' fault=''
	ready
	dest=$target show=$target
	! asked force || force=1
	! asked in-place || inplace=place
	! asked no-sync || nosync=1
	! asked target-is-zero || zero() {
		pass "$1"
	}
	! asked no-clobber || move=settle
	! asked read-back || die "recv-hole.sh doesn't read back what it wrote: --read-back needs recv-hole there"
	also=adorn
	tools
	turn=0 round=0
	examine
	until queue; do
		exec 3>/dev/null
		round=$((round + 1))
		[ "$round" -lt 45 ] || fault=again die "$show is replaced by others all the time"
		[ "$round" = 1 ] || sleep 1
		examine
	done
	if asked dry-run && [ -n "$older" ]; then
		[ -n "$had" ] || die "BASE, but there is no $show"
		le "$older" "$had" || die "$show is smaller than BASE"
	fi
	words=''
	! remains || words=' delta part manifest-first'
	becomes
	printf 'XFER-HOLE-READY 1 sh%s %s%s\n' "$words" "$becomes" "${inside:+ directory}"
	! asked discard || warn "recv-hole.sh discards nothing that it doesn't zero: --discard is for recv-hole"
	! asked direct || warn "recv-hole.sh writes through the page cache: --direct is for recv-hole"
	if asked dry-run; then
		printf 'DONE\n'
		code=0
		exit
	fi
	part=''
	receive
	if [ "$kind" = place ] && [ -n "$own$bits" ]; then
		oct=''
		adorn
		[ -z "$bits" ] || chmod "$bits" "$fd" 0>&3 || die "can't set the mode of $show"
	fi
	[ -z "$result" ] || result=" $result"
	printf 'DONE%s\n' "$result"
}

far_end() {
	LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
	export LC_ALL PATH
	# from here on silence means a dead connection; the request's timer ends
	printf 'WAIT\n'
	if [ -n "${w:-}" ]; then
		fell "$w"
		wait "$w" 2>/dev/null
	fi
	request "$@"
	exec 8<&0
	work <&8 8<&- &
	work=$!
	exec </dev/null 8<&-
	watch &
	watch=$!
	trap 'cease "(again) ended by a signal"' HUP INT TERM
	trap 'waits && cease "(again) $why"' USR1
	trap 'cease "(again) the receiver has been stopped for $patience seconds"' USR2
	trap : PIPE
	# in some shells, wait returns for a stopped process, which is then killed
	while
		wait "$work" 2>/dev/null
		x=$?
		kill -0 "$work" 2>/dev/null
	do :; done
	fell "$watch"
	wait "$watch" 2>/dev/null
	case $x in
	0) exit 0 ;;
	3) exit 2 ;;
	*) fail "the receiver ended with status $x" ;;
	esac
}

far_end "$@"
