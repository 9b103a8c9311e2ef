# shellcheck shell=sh
# shellcheck disable=SC2250,SC2249 # as in the script
# shellcheck disable=SC2154,SC2034,SC2317 # the script, and far-end.sh behind this, set, read and call the rest
# resume.sh: resumes an interrupted transfer of a new file.
#
# The functions at the end replace those of the same name in recv-hole.sh,
# which far-end.sh has renamed: `plain_hole` is the original `hole`.
#
# DEST.part.lines lists the hashed records that are stored in DEST.part. The
# first line is `XFER-HOLE-PART size interval grain inode N`. A DATA or HOLE
# line follows when its record has been written. The lines are not trusted:
# data is read back and compared with its digest before it is offered, and a
# hole is punched again.
#
#   wanted   the parameters that the sender asked for: size interval grain
#   offered  bytes from the disk's start that the sender may keep
#   behind   set until the stream has passed the offered bytes. They are in
#            DEST.part, and the lines, open as 9, are not changed before then
#   journal  the file for the lines of new records, open as 8
#   gap      bytes of zeros at the end of these lines
#   spare    the unused rest of the line that was read from 9
#   result   the digest of all lines
wanted='' offered=0 behind='' journal='' gap=0 spare='' result=''
wrapped=' opening target mark data hole keep ending former '

# ours FILE: succeed if it is a regular file with one link, owned by this user
ours() {
	look "$1"
	case $mode:$links:$uid in
	-*:1:"$me") ;;
	*) return 1 ;;
	esac
}

# rewind: open the lines as 9, and read the first one, the header
rewind() {
	spare=''
	{ command exec 9<"$part.lines"; } 2>/dev/null &&
		read -r y had_size had_ival had_grain z had_ino x <&9
}

# remains: succeed if there are a DEST.part and its lines
remains() {
	[ "$kind" = part ] && [ -n "$quick" ] || return 1
	part=$dest.part me=$(id -u)
	ours "$part" && t=$ino && ours "$part.lines" && rewind || return 1
	[ "$y $z $had_ino$x" = "XFER-HOLE-PART inode $t" ] && number "$had_size" &&
		power "$had_ival" 4096 16777216 && power "$had_grain" 512 "$had_ival"
}

# empty: punch N bytes at off in DEST.part, or succeed if they are zeros
empty() {
	! $zap -o "$off" -l "$n" "$fd" 0>&3 >/dev/null 2>&1 || return 0
	zap=''
	have tr || return 1
	x=$($take iflag=skip_bytes skip="$off" count="$n" <"$file" 2>/dev/null | tr -d '\000' | wc -c)
	[ "$x" -eq 0 ]
}

# intact: succeed if the N bytes at off in DEST.part have the digest d
intact() {
	t=$quick
	[ "${#n}" -lt 7 ] || t=${strong:-"$quick"}
	t=$($take iflag=skip_bytes skip="$off" count="$n" <"$file" 2>/dev/null | $t 2>/dev/null)
	[ "${t%% *}" = "$d" ]
}

# review: offered=the bytes, in whole intervals, for which DEST.part matches the
# lines. A truncated line ends the list.
review() {
	offered=0 off=0 prev=''
	# the name may be replaced meanwhile
	file=/proc/self/fd/3
	[ -e "$file" ] || file=$part
	while read -r line <&9; do
		d=${line##* } n=${line#* }
		n=${n%% *}
		number "$n" && add "$off" "$n" && ahead=$total && le "$ahead" "$size" || return 0
		x=${line%% *}
		(bad() {
			exit 1
		} && canonical "$x" "$n") || return 0
		case $line in
		"HOLE $n") empty ;;
		"DATA $n $d") digest "$d" && intact ;;
		*) return 0 ;;
		esac || return 0
		if [ "$ahead" = "$size" ]; then
			offered=$size
		else
			modulo "$ahead" "$ival"
			sub "$ahead" "$rest"
			le "$total" "$off" || offered=$total
		fi
		off=$ahead prev=$x
	done
}

# pull N COMMAND: run COMMAND with each of the lines for the next N bytes
pull() {
	left_over=$1
	while [ "$left_over" != 0 ]; do
		[ -n "$spare" ] || IFS= read -r spare <&9 || bad "$show.part.lines became shorter"
		x=${spare#* } line_kind=${spare%% *}
		x=${x%% *}
		if le "$x" "$left_over"; then
			sub "$left_over" "$x"
			left_over=$total x=$spare spare=''
		else
			# part of a DATA is skipped, never kept
			sub "$x" "$left_over"
			spare="$line_kind $total" x="$line_kind $left_over" left_over=0
		fi
		"$2" "$x"
	done
}

# tell LINE: send a line, buffered, so that WAIT is not inserted into it
tell() {
	log="$log$1
"
	[ "${#log}" -lt 4000 ] || answer_lines
}

answer_lines() {
	printf '%s' "$log"
	log=''
}

# offer: reply to WANT with the manifest of DEST.part, which stays open and
# locked as 3
offer() {
	sought="$ival $grain" zap='fallocate -p'
	if remains && [ "$had_size" = "$size" ]; then
		t=$show.part x=$part
		grab
		if remains; then
			ival=$had_ival grain=$had_grain
			review
		fi
	fi
	if [ "$offered" = 0 ]; then
		# DEST.part is created again, under the same lock
		locked=1
		ival=${sought% *} grain=${sought#* }
		head="0 sha256 $ival $grain"
	else
		left="; kept $show.part" behind=1
		head="$size sha256 $ival $grain"
		[ "$offered" = "$size" ] || head="$head $offered"
	fi
	wanted="$size $ival $grain" had=$offered
	sum=$(rewind && pull "$offered" echo | $quick)
	rewind
	log=''
	tell "XFER-HOLE-MANIFEST 1 $head"
	pull "$offered" tell
	tell "END ${sum%% *}"
	answer_lines
	rewind
}

# note LINE: add a line of the result; adjacent holes are joined
note() {
	case $1 in
	"HOLE "*)
		add "$gap" "${1#* }"
		gap=$total
		return
		;;
	esac
	[ "$gap" = 0 ] || put "HOLE $gap"
	gap=0
	[ -z "$1" ] || put "$1"
}

# put LINE: write to the journal by echo, since printf is no builtin in mksh
put() {
	{ echo "$1" >&8; } 2>/dev/null || die "can't write $show.part.lines"
}

# passed: the record is stored in DEST.part
passed() {
	[ -n "$journal" ] || return 0
	if [ -n "$behind" ]; then
		if [ "${line%% *}" = KEEP ]; then
			pull "$n" note
		elif le "$ahead" "$offered"; then
			pull "$n" :
		fi
	fi
	[ "${line%% *}" = KEEP ] || note "$line"
	if [ -n "$behind" ] && le "$offered" "$ahead"; then
		behind=''
		mv -f -- "$journal" "$part.lines" 2>/dev/null || die "can't rename $journal"
	fi
}

opening() {
	rec=0 off=0 poured=''
	next
	again=1
	case $kind:$quick:$line in
	part:?*:"WANT "*)
		# shellcheck disable=SC2086 # to be split
		set -- $line
		case $#$* in
		"5$line") ;;
		"6$line") digest "$6" || bad "bad digest in WANT" ;;
		*) bad "bad words in WANT" ;;
		esac
		line="XFER-HOLE 1 $2 $3 $4 $5"
		plain_opening
		offer
		;;
	esac
	plain_opening
	[ -z "$wanted" ] || [ "$size $ival $grain" = "$wanted" ] || bad "another disk than was asked for"
}

mark() {
	if [ -z "$hashed" ]; then
		plain_mark
		return
	fi
	unmark
	journal=$part.lines
	record
}

# record: create the journal for the lines of new records
record() {
	set -C
	# noclobber protects regular files only, and follows a link to a device
	{ [ ! -e "$journal" ] && [ ! -h "$journal" ] && command exec 8>"$journal" && [ -f "$journal" ]; } 2>/dev/null || {
		[ -z "$behind" ] || die "can't create $journal"
		# such as a name that is too long: the transfer can not be resumed
		journal=''
	}
	set +C
	[ -z "$journal" ] || put "XFER-HOLE-PART $size $ival $grain inode $ino"
}

target() {
	if [ -z "$behind" ]; then
		plain_target
		return
	fi
	same
	# DEST may have changed since it was examined
	y=$ino
	former
	ino=$y
	[ -z "$others" ] || warn "$show: the old disk had other names (hard links), and stays there"
	# truncate after the kept bytes, and extend by a hole
	resize "$offered"
	resize "$size"
	journal=$part.next
	rm -f -- "$journal" 2>/dev/null
	record
}

data() {
	plain_data
	passed
}

hole() {
	if [ -z "$behind" ]; then
		plain_hole
	else
		cover HOLE "$n"
		empties=$n beyond=0
		if ! le "$ahead" "$offered"; then
			sub "$ahead" "$offered"
			beyond=$total
			sub "$offered" "$off"
			empties=$total
		fi
		zero "$empties"
		pass "$beyond"
	fi
	passed
}

keep() {
	if [ -n "$wanted" ]; then
		cover KEEP "$n"
		pass "$n"
	else
		plain_keep
		# bytes of DEST have no line
		journal=''
	fi
	passed
}

ending() {
	if [ -n "$wanted" ]; then
		result=${line##* }
		digest "$result" || bad "bad digest in END"
		[ "$line" != "END $result" ] || bad "END without the digest of the result"
		line=${line% *}
	fi
	plain_ending
	[ -n "$wanted" ] || return 0
	note ''
	x=$({ read -r x && $quick; } <"$part.lines")
	[ "${x%% *}" = "$result" ] || bad "what came and what was kept are not the sender's disk"
	# DEST.part was complete
	kept=''
}
