#!/bin/bash
# What a tree is, as a list: listing.sh DIR
#
# Prints NUL-terminated records, sorted, one for each fact about each entry below DIR (and about DIR
# itself): type, mode, owner, size, modification time, link target, link group, device number,
# extended attributes with ACLs and capabilities, inode flags, holes, content. Two trees are the same
# if their lists are. Written with find, getfattr, lsattr and sha256sum only, so that it shares no
# code and no mistake with podkeep.
#
# Left out, because file systems differ in them: size and link count of directories, block counts
# (a file is "sparse" or not), flags that a file system sets by itself.
set -euo pipefail
export LC_ALL=C
cd "$1"

facts() {
    # %T@ has the nanoseconds. The path comes last: it may hold any byte but NUL.
    find . -type d -printf 'entry %y %04m %U:%G %T@ %p\0'
    find . ! -type d -printf 'entry %y %04m %U:%G %T@ size=%s links=%n to=%l %p\0'
    find . \( -type b -o -type c \) -exec stat --printf 'device %t:%T %n\0' {} +
    # Every further name of an inode, with the first one in the order of bytes.
    find . ! -type d -links +1 -printf '%i %p\0' | sort -z -k1,1n -k2 | perl -0 -ne '
        my ($inode, $path) = /^(\d+) (.*)\0$/s;
        $first{$inode} //= $path;
        print "same $first{$inode} $path\0"'
    find . -type f -size +64k -printf '%S %p\0' | perl -0 -ne 'print "sparse $2" if /^(\S+) (.*)$/s && $1 < 0.9'
    find . -type f -print0 | xargs -0r sha256sum -z
    # getfattr quotes odd bytes of names by itself and closes each entry with an empty line. The order of
    # attributes is the file system's own, so each is a fact; newer versions print no ./ before a path.
    find . -print0 | xargs -0r getfattr -h -d -m - -e hex | perl -00 -ne '
        chomp;
        my ($path, @attributes) = split /\n/;
        $path =~ s,^# file: (\./)?,,;
        print "attribute $path $_\0" for @attributes'
    find . \( -type f -o -type d \) -print0 | xargs -0r lsattr -d 2>/dev/null | perl -ne '
        my ($flags, $path) = /^(\S+) (.*)$/ or next;
        $flags =~ tr/iadAsSuDTt//cd;
        print "flags $flags $path\0" if $flags ne ""'
}
facts | sort -z
