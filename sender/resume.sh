# shellcheck shell=sh
# shellcheck disable=SC2250,SC2249 # as in the script
# shellcheck disable=SC2154,SC2034,SC2317 # the script, and far-end.sh behind this, set, read and call the rest
# resume.sh: goes on from what a transfer that was cut has left of a new file.
#
# The functions at the end stand before those of the script of the same name,
# which far-end.sh has renamed: `plain_hole` is the script's `hole`.
#
# DEST.part.lines has the lines of the hashed records that are in DEST.part: the
# first is `XFER-HOLE-PART size interval grain inode N`, then come DATA and HOLE, each when its
# record has been written. Nothing is believed of them: a digest is read back
# before it is offered, a hole is punched again.
#
#   wanted   what the sender has asked for, and is to send: size interval grain
#   offered  bytes from the disk's beginning that it may have kept
#   behind   the stream hasn't passed them yet: they are in DEST.part, and the
#            lines, which 9 reads, stay as they are until it has
#   journal  the lines of what comes, which 8 writes
#   gap      bytes of zeros at their end
#   spare    what is left of the line that 9 has read
#   result   the digest of all lines
wanted='' offered=0 behind='' journal='' gap=0 spare='' result=''
wrapped=' opening target mark data hole keep ending former '

# ours FILE: is it a plain file of one link, and of this user?
ours() {
	look "$1"
	case $mode:$links:$uid in
	-*:1:"$me") ;;
	*) return 1 ;;
	esac
}

# rewind: 9 reads the lines from the first record's on
rewind() {
	spare=''
	{ command exec 9<"$part.lines"; } 2>/dev/null &&
		read -r y had_size had_ival had_grain z had_ino x <&9
}

# remains: is there a part of a new file, and its lines?
remains() {
	[ "$kind" = part ] && [ -n "$quick" ] || return 1
	part=$dest.part me=$(id -u)
	ours "$part" && t=$ino && ours "$part.lines" && rewind || return 1
	[ "$y $z $had_ino$x" = "XFER-HOLE-PART inode $t" ] && number "$had_size" &&
		power "$had_ival" 4096 16777216 && power "$had_grain" 512 "$had_ival"
}

# empty: does DEST.part have zeros from off on, N bytes? It has then.
empty() {
	! $zap -o "$off" -l "$n" "$fd" 0>&3 >/dev/null 2>&1 || return 0
	zap=''
	have tr || return 1
	x=$($take iflag=skip_bytes skip="$off" count="$n" <"$file" 2>/dev/null | tr -d '\000' | wc -c)
	[ "$x" -eq 0 ]
}

# intact: does DEST.part have these bytes from off on?
intact() {
	t=$quick
	[ "${#n}" -lt 7 ] || t=${strong:-"$quick"}
	t=$($take iflag=skip_bytes skip="$off" count="$n" <"$file" 2>/dev/null | $t 2>/dev/null)
	[ "${t%% *}" = "$d" ]
}

# review: offered=how much is there as the lines have it, in whole intervals.
# They end where one of them is torn.
review() {
	offered=0 off=0 prev=''
	# a name may come to be another's
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

# pull N COMMAND: gives it the lines of the next N bytes
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
			# half a DATA is passed over, never kept
			sub "$x" "$left_over"
			spare="$line_kind $total" x="$line_kind $left_over" left_over=0
		fi
		"$2" "$x"
	done
}

# tell LINE: to the sender, in bundles that WAIT doesn't get into
tell() {
	log="$log$1
"
	[ "${#log}" -lt 4000 ] || answer_lines
}

answer_lines() {
	printf '%s' "$log"
	log=''
}

# offer: answers WANT with the manifest of what is there, which is locked, as 3,
# from here on
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
		# it is made anew, under the same lock
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

# note LINE: the next of the result's lines; holes are joined
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

# put LINE: mksh has echo, and no printf
put() {
	{ echo "$1" >&8; } 2>/dev/null || die "can't write $show.part.lines"
}

# passed: a record is in DEST.part
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
		# shellcheck disable=SC2086 # words
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

# record: the lines of what comes go to journal
record() {
	set -C
	# noclobber minds files alone, and would follow a link to a device
	{ [ ! -e "$journal" ] && [ ! -h "$journal" ] && command exec 8>"$journal" && [ -f "$journal" ]; } 2>/dev/null || {
		[ -z "$behind" ] || die "can't create $journal"
		# too long a name, say: nothing can be gone on from
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
	# cut behind what is kept, then a hole
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
		# DEST's bytes have no line
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
	# it was no part of DEST
	kept=''
}
