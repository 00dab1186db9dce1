/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Adds up the bytes of a file with libumbra, and says how much of it came straight from the device.
 *
 *	cc checksum.c $(pkg-config --cflags --libs umbra) -o checksum
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <umbra/umbra.h>

int main(int argc, char **argv)
{
	static unsigned char buf[1 << 20];
	struct umbra_file *file = NULL;
	struct umbra_counts counts;
	unsigned long long sum = 0;
	off_t off = 0;
	ssize_t n;
	int fd, rc;

	if (argc != 2) {
		fprintf(stderr, "usage: checksum FILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	/* Elsewhere than on umbrafs, or without the right to: then as always. */
	rc = umbra_attach(fd, &file);
	if (rc && rc != -EOPNOTSUPP) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	for (;;) {
		if (file) {
			n = umbra_pread(file, buf, sizeof(buf), off);
		} else {
			n = pread(fd, buf, sizeof(buf), off);
			n = n < 0 ? -errno : n;
		}
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			sum += buf[i];
		off += n;
	}
	if (n < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror((int)-n));
		return 1;
	}
	umbra_get_counts(&counts);
	printf("%llu, %llu of %lld bytes directly\n", sum, counts.read_bytes, (long long)off);
	umbra_detach(file);
	close(fd);
	return 0;
}
