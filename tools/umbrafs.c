/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbrafs: mounts a pool and serves it.
 */
#include "daemon/daemon.h"

int main(int argc, char **argv)
{
	return daemon_main(argc, argv);
}
