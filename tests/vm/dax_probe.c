/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Proves that the guest of tests/vm has a true device-DAX node that keeps what is stored in it: writes a pattern through
 * a mapping, or checks one that an earlier life of the guest has written.
 *
 *   dax_probe write|check SEED
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NODE "/dev/dax0.0"
#define SYSFS "/sys/bus/dax/devices/dax0.0/"

static uint64_t sysfs_read(const char *path)
{
	unsigned long long value = 0;
	FILE *f = fopen(path, "r");

	if (!f || fscanf(f, "%llu", &value) != 1) {
		fprintf(stderr, "dax_probe: cannot read %s\n", path);
		exit(1);
	}
	fclose(f);
	return value;
}

static uint64_t pattern(uint64_t seed, uint64_t offset)
{
	return (seed + 1) * 0x9e3779b97f4a7c15u ^ offset;
}

/* One piece of the device, as small as its alignment allows; false if it does not hold the pattern. */
static bool piece_visit(int fd, uint64_t offset, size_t len_bytes, uint64_t seed, bool is_write)
{
	uint64_t *words = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd,
			       (off_t)offset);
	bool is_same = true;

	if (words == MAP_FAILED) {
		perror("dax_probe: mmap");
		exit(1);
	}
	for (size_t i = 0; i < len_bytes / sizeof(*words); i++) {
		if (is_write)
			words[i] = pattern(seed, offset + i);
		else if (words[i] != pattern(seed, offset + i))
			is_same = false;
	}
	munmap(words, len_bytes);
	return is_same;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: dax_probe write|check SEED\n");
		return 2;
	}

	bool is_write = strcmp(argv[1], "write") == 0;
	uint64_t seed = strtoull(argv[2], NULL, 10);
	uint64_t align = sysfs_read(SYSFS "align");
	uint64_t size = sysfs_read(SYSFS "size");
	uint64_t offsets[] = { 0, size / align / 2 * align, size - align };
	int fd = open(NODE, O_RDWR);

	if (fd < 0) {
		perror("dax_probe: " NODE);
		return 1;
	}
	printf("align %llu size %llu\n", (unsigned long long)align, (unsigned long long)size);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		if (!piece_visit(fd, offsets[i], align, seed, is_write)) {
			printf("differs at %llu\n", (unsigned long long)offsets[i]);
			return 3;
		}
	}
	close(fd);
	return 0;
}
