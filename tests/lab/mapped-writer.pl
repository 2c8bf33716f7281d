# Runs in a container: mapped-writer.pl FOLDER
#
# Every 20 ms counts up in two files: in `written` by a write, then in `mapped` by a store into a shared
# mapping, which moves none of the file's times while the page is dirty. Prints the longest time
# between two rounds, in milliseconds, whenever it grows: what a client of the container sees of a
# freeze. Perl has no mapping of its own: the store is a read from a pipe into the mapped page.
use strict;
use warnings;
use Time::HiRes qw(sleep clock_gettime CLOCK_MONOTONIC);
$| = 1;
my $folder = shift;
# Large enough to be copied rather than read while the container rests.
my $size = 2 << 20;
open my $mapped, "+>", "$folder/mapped" or die "mapped: $!";
syswrite $mapped, "\0" x $size or die "mapped: $!";
open my $written, "+>", "$folder/written" or die "written: $!";
pipe my $reader, my $writer or die "pipe: $!";
# mmap(0, size, PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0) and read, by their numbers on x86-64.
my $page = syscall 9, 0, $size, 3, 1, fileno $mapped, 0;
die "mmap: $!" if $page == -1;
my ($round, $longest, $last) = (0, 0, clock_gettime(CLOCK_MONOTONIC));
for (;;) {
    my $text = sprintf "%010d", ++$round;
    sysseek $written, 0, 0;
    syswrite $written, $text or die "written: $!";
    syswrite $writer, $text or die "pipe: $!";
    syscall(0, fileno $reader, $page, 10) == 10 or die "store: $!";
    sleep 0.02;
    my $now = clock_gettime(CLOCK_MONOTONIC);
    my $gap = int(1000 * ($now - $last));
    $last = $now;
    next unless $gap > $longest;
    $longest = $gap;
    print "$longest\n";
}
