/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main() of a target under AFL++: many inputs for each process, from standard input. With an argument: that file, once.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz/target.h"

/* Of libFuzzer; who calls it here is never called. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
	(void)data, (void)max_size;
	return size;
}

int main(int argc, char **argv)
{
	static uint8_t data[65536];
	ssize_t size;

	LLVMFuzzerInitialize(&argc, &argv);
	if (argc > 1) {
		int file = open(argv[1], O_RDONLY);

		size = file < 0 ? -1 : read(file, data, sizeof(data));
		if (size < 0) {
			perror(argv[1]);
			return 2;
		}
		return LLVMFuzzerTestOneInput(data, (size_t)size);
	}
	__AFL_INIT();
	while (__AFL_LOOP(500)) {
		size = read(STDIN_FILENO, data, sizeof(data));
		if (size >= 0)
			LLVMFuzzerTestOneInput(data, (size_t)size);
	}
	return 0;
}
