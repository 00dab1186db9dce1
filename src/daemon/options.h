/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of umbrafs: POOL DIR and mount options. The options of mount(8) and fstab(5) are all understood, whether they mean
 * something here or not; any other one is refused (unless sloppy), since a mistyped option silently does the opposite.
 */
#ifndef UMBRA_DAEMON_OPTIONS_H
#define UMBRA_DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/direct_rights.h"
#include "dax/dax.h"
#include "fuse/session.h"
#include "util/util.h"

struct daemon_opts {
	const char *pool, *dir;
	bool foreground, sloppy, verbose, help, version;
	bool remount;
	unsigned long mount_flags; /* MS_* */
	bool allow_other;
	bool noatime, strictatime;
	enum dax_durability durability;
	enum session_dax dax;
	enum session_placement placement;
	enum session_transport transport;
	bool keeper;          /* another daemon can take over */
	const char *on_event; /* a program to run for each event of bad memory; or NULL */
	struct direct_rights direct;
	bool direct_given;    /* by an option */
	uint64_t direct_unit; /* what they map are multiples of it; 0: as the device needs it */
	const char *socket;   /* where processes ask for direct mappings; NULL: a place by default */
	unsigned threads;     /* 0: as many as fit the machine */
	const char *fixed;    /* the last given option that a remount cannot change, with its '='; or NULL */
};

/* -EINVAL: one line in why. */
must_check int options_parse(int argc, char **argv, struct daemon_opts *opts, char *why, size_t why_size);

extern const char options_help[];

#endif
