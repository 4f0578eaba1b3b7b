#!/bin/sh
# A tool that keeps what it is told, as mlxconfig does (MFT 4.31, Examples of mlxconfig Usage), for tests: `next` beside it has a line for each
# setting, `current` is what a reset made of it. It refuses more than 100 virtual functions.
dir=$(dirname "$0")
echo "$*" >> "$dir/calls"
[ "$1 $2" = "-d /dev/mst/mt41692_pciconf0" ] || { echo "-E- no such device" >&2; exit 3; }
shift 2
case "$1 $2" in
"-e query")
    echo "Configurations:                              Default  Current  Next Boot"
    while read -r key value; do
        echo "*        $key   0   $(sed -n "s/^$key //p" "$dir/current")   $value"
    done < "$dir/next" ;;
"-y set")
    shift 2
    for one in "$@"; do
        key=${one%%=*}; value=${one#*=}
        grep -q "^$key " "$dir/next" || { echo "-E- The Device doesn't support $key parameter" >&2; exit 3; }
        [ "$key" = NUM_OF_VFS ] && [ "$value" -gt 100 ] && { echo "-E- Failed to set configuration: value is out of range" >&2; exit 3; }
        sed -i "s/^$key .*/$key $value/" "$dir/next"
    done ;;
*) exit 2 ;;
esac
