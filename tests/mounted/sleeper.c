/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program that does nothing, whatever it is told. See keeper.sh.
 */
#include <unistd.h>

int main(void)
{
	for (;;)
		pause();
}
