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
#define LINE_BYTES 64u
#define BLOCK_LINES (BLOCK_BYTES / LINE_BYTES)

static const char usage[] =
	"usage: umbractl repair --from BACKUP [--unchecked] [--json] FILE\n"
	"Puts back what FILE has lost to bad memory, from BACKUP, a copy of it, for all files that share those blocks. Writes only what is\n"
	"lost, and only where all else of the block, and the nearest blocks on both sides that can be read, are as in BACKUP, which has the size of FILE.\n"
	"Lost blocks beside each other are all put back, or none of them. For root and the user who mounted.\n"
	"Files that share them and are damaged themselves are named, and passed over.\n"
	"\n"
	"  -u, --unchecked  takes BACKUP at its word where nothing is left of FILE to compare it with; what differs is refused all the same\n"
	"Exit status: 0 nothing is lost any more, 1 something could not be put back, or not be read yet, 2 usage.\n";

/* A block of the file. */
struct lost {
	uint64_t off;
	uint64_t lines; /* bit i: bytes 64 * i to 64 * i + 63 */
};

struct repair {
	const char *name, *backup_name;
	int fd, backup;
	bool unchecked;
	uint64_t ino, size_bytes, blocks, healed, failed;
	uint64_t unread;   /* blocks that cannot be read, of which nobody knows yet what is lost */
	struct lost *lost; /* in the order of the file */
	size_t lost_count;
	uint64_t *damaged; /* inodes that share the blocks, but cannot be healed */
	size_t damaged_count;
	bool damaged_more;
};

static int take(void *arg, int letter, const char *value)
{
	struct repair *r = arg;

	if (letter == 'u')
		r->unchecked = true;
	else
		r->backup_name = value;
	return 0;
}

/* Zeroes past the end. 0 or an errno. */
static int bytes_read(int fd, uint64_t off, uint8_t *bytes, size_t len)
{
	size_t got = 0;

	memset(bytes, 0, len);
	while (got < len) {
		ssize_t n = pread(fd, bytes + got, len - got, (off_t)(off + got));

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

/* ---- is it a backup of this? ---- */

enum verdict { UNKNOWN, AGREES, DIFFERS };

/* Of bytes that both have. What lies past the end says nothing. */
static enum verdict bytes_compare(const struct repair *r, uint64_t off, size_t len)
{
	uint8_t have[BLOCK_BYTES], want[BLOCK_BYTES];

	if (off >= r->size_bytes)
		return UNKNOWN;
	if (len > r->size_bytes - off)
		len = (size_t)(r->size_bytes - off);
	if (bytes_read(r->fd, off, have, len) != 0 || bytes_read(r->backup, off, want, len) != 0)
		return UNKNOWN;
	return memcmp(have, want, len) == 0 ? AGREES : DIFFERS;
}

/* Of the lines of the block that are not lost. */
static enum verdict rest_compare(const struct repair *r, const struct lost *l)
{
	enum verdict all = UNKNOWN;

	for (unsigned line = 0, end; line < BLOCK_LINES && all != DIFFERS; line = end + 1) {
		enum verdict v;

		for (end = line; end < BLOCK_LINES && !(l->lines >> end & 1); end++)
			;
		v = end > line ? bytes_compare(r, l->off + line * LINE_BYTES, (end - line) * LINE_BYTES) :
				 UNKNOWN;
		if (v != UNKNOWN)
			all = v;
	}
	return all;
}

static int lost_order(const void *a, const void *b)
{
	const struct lost *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Something of the block is known to be lost. */
static bool lost_has(const struct repair *r, uint64_t off)
{
	const struct lost key = { .off = off };

	return r->lost_count > 0 && bsearch(&key, r->lost, r->lost_count, sizeof(key), lost_order);
}

/*
 * Of the nearest block before (after) this one that can be read. What was lost when we came does not count, even if it is back by now:
 * it has come from the backup, and would vouch for it.
 */
static enum verdict side_compare(const struct repair *r, uint64_t off, bool after)
{
	enum verdict v = UNKNOWN;

	while (v == UNKNOWN) {
		if (after ? r->size_bytes - off <= BLOCK_BYTES : off == 0)
			break;
		off = after ? off + BLOCK_BYTES : off - BLOCK_BYTES;
		if (!lost_has(r, off))
			v = bytes_compare(r, off, BLOCK_BYTES);
	}
	return v;
}

/* Of all that can be read of lost blocks beside each other, and around them. */
static enum verdict run_compare(const struct repair *r, const struct lost *run, size_t count)
{
	enum verdict all = side_compare(r, run->off, false);

	for (size_t i = 0; i <= count && all != DIFFERS; i++) {
		enum verdict v = i < count ? rest_compare(r, &run[i]) :
					     side_compare(r, run[count - 1].off, true);

		if (v != UNKNOWN)
			all = v;
	}
	return all;
}

/* ---- putting back ---- */

static void damaged_note(struct repair *r, const struct umbra_repair *arg)
{
	unsigned named = arg->damaged < UMBRA_REPAIR_NAMED ? arg->damaged : UMBRA_REPAIR_NAMED;
	char text[32];

	r->damaged_more |= arg->damaged > named;
	for (unsigned i = 0; i < named; i++) {
		uint64_t *more, ino = arg->damaged_inos[i];
		size_t at = 0;

		while (at < r->damaged_count && r->damaged[at] != ino)
			at++;
		if (at < r->damaged_count)
			continue;
		more = reallocarray(r->damaged, at + 1, sizeof(*more));
		if (!more) {
			r->damaged_more = true;
			return;
		}
		r->damaged = more;
		r->damaged[r->damaged_count++] = ino;
		snprintf(text, sizeof(text), "inode %llu", (unsigned long long)ino);
		ctl_say(text,
			"shares lost blocks, but is damaged and has nothing put back: see fsck.umbrafs(8)");
	}
}

static void run_refuse(struct repair *r, const struct lost *run, size_t count, const char *why)
{
	char text[256];

	if (count == 1)
		snprintf(text, sizeof(text), "the block at %llu cannot be put back: %s",
			 (unsigned long long)run->off, why);
	else
		snprintf(text, sizeof(text), "the %zu blocks from %llu on cannot be put back: %s", count,
			 (unsigned long long)run->off, why);
	ctl_say(r->name, text);
	r->failed += count;
}

/* 0 or an errno. */
static int block_put_back(struct repair *r, const struct lost *l)
{
	struct umbra_repair arg = { .off = l->off };
	int rc = bytes_read(r->backup, l->off, arg.block, BLOCK_BYTES);

	if (rc == 0)
		rc = ioctl(r->fd, UMBRA_IOC_REPAIR, &arg) ? errno : 0;
	if (rc == 0) {
		r->healed += arg.healed;
		damaged_note(r, &arg);
	}
	return rc == ENODATA ? 0 : rc; /* somebody else has put it back */
}

static const char *why_not(int error)
{
	if (error == EBUSY)
		return "the file is in bad memory there that it could not leave yet, for want of space: free some, and try again (umbractl poison list)";
	return strerror(error);
}

/* Lost blocks beside each other: nobody but those around them can tell whether the backup is the right one. */
static void run_put_back(struct repair *r, const struct lost *run, size_t count)
{
	static const char differs[] = "what can be read there differs from the backup";
	enum verdict verdict = run_compare(r, run, count);

	r->blocks += count;
	if (verdict == DIFFERS) {
		run_refuse(r, run, count, differs);
		return;
	}
	if (verdict == UNKNOWN && !r->unchecked) {
		run_refuse(r, run, count,
			   "nothing is left to compare with the backup (--unchecked takes it at its word)");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		int rc = block_put_back(r, &run[i]);

		if (rc == EBADMSG) { /* somebody has written there since it was compared */
			run_refuse(r, &run[i], count - i, differs);
			return;
		}
		if (rc)
			run_refuse(r, &run[i], 1, why_not(rc));
	}
}

/* The blocks of the file that have lost something. 0 or an errno. */
static int losses_find(struct repair *r)
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
			if (r->lost_count == room) {
				struct lost *more =
					reallocarray(r->lost, room = room ? 2 * room : 64, sizeof(*more));

				if (!more) {
					rc = ENOMEM;
					break;
				}
				r->lost = more;
			}
			r->lost[r->lost_count++] = (struct lost){ loss->file_off, loss->lost_lines };
		}
	}
	free(page);
	if (r->lost_count > 0)
		qsort(r->lost, r->lost_count, sizeof(*r->lost), lost_order);
	return rc;
}

/*
 * What is in bad memory that the file could not leave has no loss recorded: it is not known to be lost before the file has another block. 0 or an errno.
 */
static int unread_find(struct repair *r)
{
	struct umbra_extents *page = calloc(1, sizeof(*page));
	bool last = false;
	int rc = page ? 0 : ENOMEM;

	while (rc == 0 && !last) {
		const struct umbra_extent *e = NULL;

		page->count = 0;
		page->flags = 0;
		if (ioctl(r->fd, UMBRA_IOC_EXTENTS, page)) {
			rc = errno;
			break;
		}
		for (uint32_t i = 0; i < page->count; i++) {
			uint8_t bytes[BLOCK_BYTES];

			e = &page->extents[i];
			for (uint64_t at = 0; e->flags & UMBRA_EXTENT_BAD && at < e->len; at += BLOCK_BYTES) {
				uint64_t off = e->file_off + at;

				if (!lost_has(r, off))
					r->unread += bytes_read(r->fd, off, bytes, BLOCK_BYTES) == EIO;
			}
		}
		last = !e || e->flags & UMBRA_EXTENT_LAST;
		if (!last)
			page->off = e->file_off + e->len;
	}
	free(page);
	return rc;
}

static int repair_all(struct repair *r)
{
	struct stat st, backup;
	int rc = fstat(r->fd, &st);

	if (rc || fstat(r->backup, &backup))
		return ctl_fail(r->name, errno);
	/* What has no size of its own, /dev/zero say, agrees with too much. */
	if (!S_ISREG(backup.st_mode))
		return ctl_say(r->backup_name, "is no plain file: no backup of it");
	if (backup.st_size != st.st_size)
		return ctl_say(r->backup_name, "has another size than the file: no backup of it");
	r->ino = st.st_ino;
	r->size_bytes = (uint64_t)st.st_size;
	rc = losses_find(r);
	for (size_t i = 0, end; i < r->lost_count && rc == 0; i = end) {
		for (end = i + 1; end < r->lost_count; end++)
			if (r->lost[end].off != r->lost[end - 1].off + BLOCK_BYTES)
				break;
		run_put_back(r, r->lost + i, end - i);
	}
	if (rc == 0)
		rc = unread_find(r);
	if (r->unread > 0) {
		char text[256];

		snprintf(
			text, sizeof(text),
			"%llu blocks cannot be read, in bad memory that the file could not leave yet, for want of space: free some, and try again (umbractl poison list)",
			(unsigned long long)r->unread);
		ctl_say(r->name, text);
	}
	if (rc == EPERM)
		return ctl_say(r->name, "only root and the user who mounted it may do that");
	return rc ? ctl_fail(r->name, rc) : 0;
}

int ctl_repair(int argc, char **argv)
{
	static const struct option longs[] = { { "from", required_argument, NULL, 'f' },
					       { "unchecked", no_argument, NULL, 'u' },
					       { NULL, 0, NULL, 0 } };
	struct repair r = { .fd = -1 };
	struct ctl_args args = {
		.usage = usage,
		.letters = "f:u",
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
	r.backup = ctl_open(r.backup_name, O_RDONLY | O_NONBLOCK); /* a FIFO must not keep it waiting */
	if (r.backup < 0)
		return STATUS_FAILED;
	r.fd = ctl_open(r.name, O_RDWR);
	rc = r.fd < 0 ? STATUS_FAILED : repair_all(&r);
	close(r.backup);
	if (r.fd >= 0)
		close(r.fd);
	free(r.damaged);
	free(r.lost);
	if (rc)
		return rc;
	if (r.damaged_more)
		fprintf(stderr,
			"umbractl repair: and more damaged inodes: the log of the daemon names them all\n");
	if (args.json)
		printf("{ \"blocks\": %llu, \"healed\": %llu, \"failed\": %llu, \"unread\": %llu, \"damaged_sharers\": %zu }\n",
		       (unsigned long long)r.blocks, (unsigned long long)r.healed,
		       (unsigned long long)r.failed, (unsigned long long)r.unread, r.damaged_count);
	else
		printf("%llu lost blocks, %llu put back (%llu with those that share them), %llu not\n",
		       (unsigned long long)r.blocks, (unsigned long long)(r.blocks - r.failed),
		       (unsigned long long)r.healed, (unsigned long long)r.failed);
	rc = ctl_finish();
	return rc ? rc : r.failed || r.unread || r.damaged_count ? STATUS_FAILED : 0;
}
