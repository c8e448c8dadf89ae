#!/usr/bin/env bash
#
# Pack a folder into a dated archive and keep only the newest few.
#
# Usage: backup.sh [-k COUNT] [-n] SOURCE TARGET
#   -k COUNT  how many archives to keep (default: 7)
#   -n        dry run: say what would be done, and do nothing

set -euo pipefail

readonly program=${0##*/}
keep=7
dry_run=false

die() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

usage() {
    sed -n 's/^# \{0,1\}//; 3,7p' "$0" >&2
    exit 2
}

say() {
    printf '%(%H:%M:%S)T  %s\n' -1 "$*"
}

# Run a command, or only show it in a dry run.
run() {
    if "$dry_run"; then
        printf 'would run:'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

human_size() {
    local bytes=$1 unit
    for unit in B KB MB GB; do
        if (( bytes < 1024 )); then
            break
        fi
        bytes=$(( bytes / 1024 ))
    done
    echo "$bytes $unit"
}

while getopts ':k:nh' option; do
    case $option in
        k) keep=$OPTARG ;;
        n) dry_run=true ;;
        h) usage ;;
        :) die "option -$OPTARG needs a value" ;;
        *) die "unknown option -$OPTARG" ;;
    esac
done
shift $(( OPTIND - 1 ))

(( $# == 2 )) || usage
[[ $keep =~ ^[1-9][0-9]*$ ]] || die "not a positive number: $keep"

source=${1%/}
target=${2%/}
[[ -d $source ]] || die "no such folder: $source"

name=$(basename -- "$source")
archive=$target/$name-$(date +%Y%m%d-%H%M%S).tar.gz
[[ ! -e $archive ]] || die "exists already: $archive"

run mkdir -p -- "$target"

# Write to a temporary name first, so that an interrupted run never leaves
# half an archive under a good name.
partial=$archive.partial
trap 'rm -f -- "$partial"' EXIT

say "packing $source"
run tar -C "$(dirname -- "$source")" -czf "$partial" -- "$name"
run mv -- "$partial" "$archive"
if [[ -f $archive ]]; then
    say "wrote $archive ($(human_size "$(wc -c < "$archive")"))"
fi

# The date in the name makes the alphabetical order the order of time.
shopt -s nullglob
archives=("$target/$name"-[0-9]*.tar.gz)
surplus=$(( ${#archives[@]} - keep ))
for (( i = 0; i < surplus; i++ )); do
    say "removing ${archives[i]}"
    run rm -- "${archives[i]}"
done

say "done, $(( surplus > 0 ? keep : ${#archives[@]} )) archive(s) kept"
