/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl repair: what a file has lost to bad memory is put back from a backup.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u

static const char usage[] =
	"usage: umbractl repair --from BACKUP [--json] FILE\n"
	"Puts back what FILE has lost to bad memory, from BACKUP, a copy of it, for all files that share those blocks. Writes only what is\n"
	"lost, and only where all else of the block and the blocks beside it are as in BACKUP, which has the size of FILE. For root and the user who mounted.\n"
	"Exit status: 0 nothing is lost any more, 1 something could not be put back, 2 usage.\n";

struct repair {
	const char *name, *backup_name;
	int fd, backup;
	uint64_t ino, blocks, healed, failed;
};

static int take(void *arg, int letter, const char *value)
{
	struct repair *r = arg;

	(void)letter;
	r->backup_name = value;
	return 0;
}

/* A whole block, zeroes past the end. 0 or an errno. */
static int block_read(int fd, uint64_t off, uint8_t *block)
{
	size_t got = 0;

	memset(block, 0, BLOCK_BYTES);
	while (got < BLOCK_BYTES) {
		ssize_t n = pread(fd, block + got, BLOCK_BYTES - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return 0;
}

/* Of a block that is lost as a whole nothing is left to compare: its neighbours have to be the same. */
static bool neighbours_agree(const struct repair *r, uint64_t off)
{
	uint8_t have[BLOCK_BYTES], want[BLOCK_BYTES];

	for (unsigned after = 0; after < 2; after++) {
		uint64_t at = after ? off + BLOCK_BYTES : off - BLOCK_BYTES;

		if ((!after && off == 0) || block_read(r->fd, at, have) != 0)
			continue; /* none, or lost too */
		if (block_read(r->backup, at, want) != 0 || memcmp(have, want, BLOCK_BYTES) != 0)
			return false;
	}
	return true;
}

static void block_put_back(struct repair *r, uint64_t off)
{
	struct umbra_repair arg = { .off = off };
	int rc = block_read(r->backup, off, arg.block);
	char why[160];

	r->blocks++;
	if (rc == 0 && !neighbours_agree(r, off))
		rc = EBADMSG;
	if (rc == 0)
		rc = ioctl(r->fd, UMBRA_IOC_REPAIR, &arg) ? errno : 0;
	if (rc == 0)
		r->healed += arg.healed;
	if (rc == 0 || rc == ENODATA) /* or somebody else has */
		return;
	snprintf(why, sizeof(why), "the block at %llu cannot be put back: %s", (unsigned long long)off,
		 rc == EBADMSG ? "what can be read there differs from the backup" : strerror(rc));
	ctl_say(r->name, why);
	r->failed++;
}

/* The blocks of the file that have lost something. 0 or an errno. */
static int losses_find(const struct repair *r, uint64_t **offs, size_t *count)
{
	struct umbra_losses *page = calloc(1, sizeof(*page));
	size_t room = 0;
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		if (ioctl(r->fd, UMBRA_IOC_LOSSES, page))
			rc = errno;
		if (rc || page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data) && rc == 0; i++) {
			const struct umbra_loss *loss = (const void *)(page->data + at);

			at += loss->record_size;
			if (loss->ino != r->ino)
				continue;
			if (*count == room) {
				uint64_t *more =
					reallocarray(*offs, room = room ? 2 * room : 64, sizeof(*more));

				if (!more) {
					rc = ENOMEM;
					break;
				}
				*offs = more;
			}
			(*offs)[(*count)++] = loss->file_off;
		}
	}
	free(page);
	return rc;
}

static int repair_run(struct repair *r)
{
	uint64_t *offs = NULL;
	size_t count = 0;
	struct stat st, backup;
	int rc = fstat(r->fd, &st) ? errno : 0;

	r->ino = st.st_ino;
	if (rc == 0 && fstat(r->backup, &backup) == 0 && S_ISREG(backup.st_mode) &&
	    backup.st_size != st.st_size)
		return ctl_say(r->backup_name, "has another size than the file: no backup of it");
	if (rc == 0)
		rc = losses_find(r, &offs, &count);
	for (size_t i = 0; i < count && rc == 0; i++)
		block_put_back(r, offs[i]);
	free(offs);
	if (rc == EPERM)
		return ctl_say(r->name, "only root and the user who mounted it may do that");
	return rc ? ctl_fail(r->name, rc) : 0;
}

int ctl_repair(int argc, char **argv)
{
	static const struct option longs[] = { { "from", required_argument, NULL, 'f' },
					       { NULL, 0, NULL, 0 } };
	struct repair r = { .fd = -1 };
	struct ctl_args args = {
		.usage = usage,
		.letters = "f:",
		.longs = longs,
		.take = take,
		.arg = &r,
		.min = 1,
		.max = 1,
	};
	int rc = ctl_parse(&args, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	if (!r.backup_name) {
		fprintf(stderr, "umbractl repair: --from BACKUP is missing (try --help)\n");
		return STATUS_USAGE;
	}
	r.name = args.names[0];
	r.backup = ctl_open(r.backup_name, O_RDONLY);
	if (r.backup < 0)
		return STATUS_FAILED;
	r.fd = ctl_open(r.name, O_RDWR);
	rc = r.fd < 0 ? STATUS_FAILED : repair_run(&r);
	close(r.backup);
	if (r.fd >= 0)
		close(r.fd);
	if (rc)
		return rc;
	if (args.json)
		printf("{ \"blocks\": %llu, \"healed\": %llu, \"failed\": %llu }\n",
		       (unsigned long long)r.blocks, (unsigned long long)r.healed,
		       (unsigned long long)r.failed);
	else
		printf("%llu lost blocks, %llu put back (%llu with those that share them), %llu not\n",
		       (unsigned long long)r.blocks, (unsigned long long)(r.blocks - r.failed),
		       (unsigned long long)r.healed, (unsigned long long)r.failed);
	rc = ctl_finish();
	return rc ? rc : r.failed ? STATUS_FAILED : 0;
}
