/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who may map pages of the device directly: the mount option direct=off|ro|rw[:LIST].
 *
 * LIST has entries with '+' between them: a user by name or number, @ and a group by name or number, * for everybody.
 */
#ifndef UMBRA_DAEMON_DIRECT_RIGHTS_H
#define UMBRA_DAEMON_DIRECT_RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <umbra/direct.h>

#include "util/util.h"

enum direct_grantee { DIRECT_USER, DIRECT_GROUP, DIRECT_EVERYBODY };

#define DIRECT_ENTRIES_MAX 64u
struct direct_rights {
	uint32_t owners; /* UMBRA_DIRECT_* of root and the user who mounts */
	uint32_t listed; /* of those in the list */
	unsigned count;
	struct {
		enum direct_grantee kind;
		uint32_t id;
	} entries[DIRECT_ENTRIES_MAX];
};

/* As without the option. */
#define DIRECT_RIGHTS_DEFAULT ((struct direct_rights){ .owners = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE })

/* value: what follows direct=. -EINVAL: one line in why. */
must_check int direct_rights_parse(const char *value, struct direct_rights *rights, char *why,
				   size_t why_size);

/* UMBRA_DIRECT_* of a user. has_group: whether the group is one of his. */
uint32_t direct_rights_of(const struct direct_rights *rights, uid_t uid,
			  bool (*has_group)(void *arg, uint32_t gid), void *arg);

#endif
