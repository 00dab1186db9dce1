/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl evacuate: moves all out of a range of the device.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define STATUS_STAYS 3
#define PROGRESS_MS 200
#define BLOCK_BYTES 4096u

static const char usage[] =
	"usage: umbractl evacuate [--mark-bad] [--json] START[+LENGTH] PATH\n"
	"Moves all that files, metadata and the journal have in a range of the device elsewhere, while the file system is in use. Nothing is lost, and what is\n"
	"shared stays shared. START and LENGTH in bytes, decimal or 0x..., with K, M, G, T if you like; without LENGTH one block.\n"
	"After a crash, or when it was stopped, the same command goes on. For root and the user who mounted.\n"
	"\n"
	"  -b, --mark-bad   in the end nothing is handed out of the range any more (see `umbractl poison`); else it can be used again\n"
	"Exit status: 0 the range is empty, 1 failed, 2 usage, 3 done, but some of it cannot move: it is listed.\n";

static volatile sig_atomic_t stopped;

static void on_stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static int take(void *arg, int letter, const char *value)
{
	(void)letter;
	(void)value;
	*(bool *)arg = true;
	return 0;
}

static bool range_parse(const char *text, uint64_t *off, uint64_t *len)
{
	char *copy = strdup(text), *plus = copy ? strchr(copy, '+') : NULL;
	bool ok = copy != NULL;

	if (plus)
		*plus++ = '\0';
	*len = BLOCK_BYTES;
	ok = ok && args_size(copy, off) && (!plus || (args_size(plus, len) && *len > 0));
	free(copy);
	return ok;
}

static uint64_t moved(const struct umbra_evacuate *e)
{
	return e->data_bytes + e->shared_bytes + e->meta_bytes;
}

/* ---- what stays ---- */

struct stays {
	bool quiet;
	struct json_object *list;
	uint64_t last_off, last_len; /* the last run of blocks; 0: none */
	uint16_t last_kind;
	uint64_t count;
	bool no_files;          /* they came, or are on their way, after the range was opened again */
	uint64_t special_bytes; /* of what is no file, nor to be one's */
};

static const char *why_stays(uint16_t kind)
{
	switch (kind) {
	case UMBRA_OWNER_SUPER:
		return "superblock: at its fixed place";
	case UMBRA_OWNER_JOURNAL:
		return "journal: no piece elsewhere is long enough, something is damaged, or it is beside lanes that stay";
	case UMBRA_OWNER_META:
	case UMBRA_OWNER_MIRROR:
		return "metadata: a group's first units, at their fixed place";
	case UMBRA_OWNER_FILE:
		return "file: it is damaged, or memory is";
	case UMBRA_OWNER_FORWARD:
		return "being moved: not all of its files have followed, they may be damaged";
	default:
		return "metadata";
	}
}

static void stays_put(struct stays *s)
{
	struct json_object *o;

	if (s->last_len == 0)
		return;
	s->count++;
	if (!s->quiet) {
		printf("stays: %#llx+%llu  %s\n", (unsigned long long)s->last_off,
		       (unsigned long long)s->last_len, why_stays(s->last_kind));
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "dev_off", json_u64(s->last_off));
	json_object_object_add(o, "len", json_u64(s->last_len));
	json_object_object_add(o, "why", json_object_new_string(why_stays(s->last_kind)));
	json_object_array_add(s->list, o);
}

/* Files have it, or will. */
static bool of_files(const struct umbra_owner *owner)
{
	return owner->kind == UMBRA_OWNER_FILE || owner->kind == UMBRA_OWNER_FORWARD;
}

static void stays_add(struct stays *s, const struct umbra_owner *owner)
{
	if (owner->kind == UMBRA_OWNER_BAD || owner->kind == UMBRA_OWNER_SPARE ||
	    (of_files(owner) && s->no_files))
		return;
	if (s->last_len && s->last_kind == owner->kind && s->last_off + s->last_len == owner->dev_off) {
		s->last_len += owner->len;
		return;
	}
	stays_put(s);
	s->last_off = owner->dev_off;
	s->last_len = owner->len;
	s->last_kind = owner->kind;
}

static void special_add(struct stays *s, const struct umbra_owner *owner)
{
	if (!of_files(owner) && owner->kind != UMBRA_OWNER_BAD && owner->kind != UMBRA_OWNER_SPARE)
		s->special_bytes += owner->len;
}

/* 0 or an errno. */
static int owners_each(struct stays *s, int fd, const struct umbra_evacuate *e,
		       void (*fn)(struct stays *s, const struct umbra_owner *owner))
{
	struct umbra_owners *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		page->dev_off = e->off;
		page->len = e->len;
		page->flags = UMBRA_OWNERS_NO_PATHS;
		if (ioctl(fd, UMBRA_IOC_OWNERS, page))
			rc = errno;
		if (rc || page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data); i++) {
			const struct umbra_owner *owner = (const void *)(page->data + at);

			fn(s, owner);
			at += owner->record_size;
		}
	}
	free(page);
	return rc;
}

/*
 * What the daemon has left. Without --mark-bad the range is in use again by now, and others may have stored there: nothing is listed if
 * nothing was left, and no files if metadata and the like are all of it. 0 or an errno.
 */
static int stays_list(struct stays *s, int fd, const struct umbra_evacuate *e)
{
	int rc;

	if (e->left_bytes == 0)
		return 0;
	rc = owners_each(s, fd, e, special_add);
	s->no_files = s->special_bytes >= e->left_bytes;
	if (!rc)
		rc = owners_each(s, fd, e, stays_add);
	stays_put(s);
	return rc;
}

/* ---- all ---- */

static int space_missing(const char *path, const struct umbra_evacuate *e)
{
	char needed[ARGS_SIZE_TEXT], have[ARGS_SIZE_TEXT], text[256];

	snprintf(
		text, sizeof(text),
		"there is not enough space elsewhere, nothing was done: about %s needed (of it %llu whole chunks of 2 "
		"MiB), %s free (%llu chunks)",
		args_size_text(e->needed_bytes, needed, sizeof(needed)), (unsigned long long)e->needed_chunks,
		args_size_text(e->free_bytes, have, sizeof(have)), (unsigned long long)e->free_chunks);
	return ctl_say(path, text);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until it has come to its end. 0 or an errno; EINTR: stopped. */
static int steps(int fd, struct umbra_evacuate *e)
{
	uint64_t shown_ms = now_ms();
	bool shown = false;
	int rc = 0;

	while (!rc && !e->error && e->state != UMBRA_EVACUATE_DONE) {
		e->op = stopped ? UMBRA_EVACUATE_STOP : UMBRA_EVACUATE_STEP;
		if (ioctl(fd, UMBRA_IOC_EVACUATE, e))
			rc = errno == EINTR ? 0 : errno;
		else if (e->op == UMBRA_EVACUATE_STOP)
			rc = EINTR;
		if (!isatty(STDERR_FILENO) || now_ms() - shown_ms < PROGRESS_MS)
			continue;
		shown_ms = now_ms();
		fprintf(stderr, "\revacuate: %3.0f %% ",
			e->total_bytes ? 100.0 * (double)moved(e) / (double)e->total_bytes : 100.0);
		shown = true;
	}
	if (shown)
		fprintf(stderr, "\r                \r");
	return rc;
}

static int print(const struct umbra_evacuate *e, const struct stays *s)
{
	char text[ARGS_SIZE_TEXT];
	struct json_object *o;

	if (!s->quiet) {
		printf("%#llx+%llu: %s moved, %s\n", (unsigned long long)e->off, (unsigned long long)e->len,
		       args_size_text(moved(e), text, sizeof(text)),
		       s->count                           ? "the rest stays" :
		       e->flags & UMBRA_EVACUATE_MARK_BAD ? "the range is empty and out of use" :
							    "the range is empty");
		return ctl_finish();
	}
	o = json_object_new_object();
	json_object_object_add(o, "dev_off", json_u64(e->off));
	json_object_object_add(o, "len", json_u64(e->len));
	json_object_object_add(o, "moved_bytes", json_u64(moved(e)));
	json_object_object_add(o, "data_bytes", json_u64(e->data_bytes));
	json_object_object_add(o, "shared_bytes", json_u64(e->shared_bytes));
	json_object_object_add(o, "metadata_bytes", json_u64(e->meta_bytes));
	json_object_object_add(o, "left_bytes", json_u64(e->left_bytes));
	json_object_object_add(o, "stays", s->list);
	return ctl_print_json(o);
}

static int evacuate(const char *path, int fd, struct umbra_evacuate *e, bool json)
{
	struct stays s = { .quiet = json, .list = json ? json_object_new_array() : NULL };
	struct sigaction stop = { .sa_handler = on_stop };
	int rc;

	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	e->op = UMBRA_EVACUATE_START;
	rc = ioctl(fd, UMBRA_IOC_EVACUATE, e) ? errno : 0;
	if (!rc && e->error == ENOSPC)
		rc = space_missing(path, e);
	else if (!rc)
		rc = steps(fd, e);
	else if (rc == EINVAL)
		rc = ctl_say(path, "the range begins past the end of the device");
	else if (rc == EPERM)
		rc = ctl_say(path, "only root and the user who mounted it may do that");
	else
		rc = ctl_fail(path, rc);
	if (rc == EINTR)
		rc = ctl_say(path, "stopped; the same command goes on");
	else if (rc == ECANCELED)
		rc = ctl_say(
			path,
			"it was ended by another evacuation, or for lack of space; the same command goes on");
	else if (!rc && e->error)
		rc = ctl_say(
			path,
			e->error == ENOSPC ?
				"there is no more space elsewhere; what has moved stays so, the same command goes on" :
				strerror((int)e->error));
	else if (!rc)
		rc = stays_list(&s, fd, e) ? ctl_fail(path, EIO) : print(e, &s);
	else if (rc != STATUS_FAILED)
		rc = ctl_fail(path, rc);
	return !rc && s.count ? STATUS_STAYS : rc;
}

int ctl_evacuate(int argc, char **argv)
{
	static const struct option longs[] = { { "mark-bad", no_argument, NULL, 'b' }, { NULL, 0, NULL, 0 } };
	bool mark_bad = false;
	struct ctl_args args = { .usage = usage,
				 .letters = "b",
				 .longs = longs,
				 .take = take,
				 .arg = &mark_bad,
				 .min = 2,
				 .max = 2 };
	struct umbra_evacuate e = { 0 };
	uint64_t off, len;
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	if (!range_parse(args.names[0], &off, &len)) {
		fprintf(stderr, "umbractl evacuate: %s: must be START or START+LENGTH\n", args.names[0]);
		return STATUS_USAGE;
	}
	fd = ctl_open(args.names[1], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	e.off = off;
	e.len = len;
	e.flags = mark_bad ? UMBRA_EVACUATE_MARK_BAD : 0;
	rc = evacuate(args.names[1], fd, &e, args.json);
	close(fd);
	return rc;
}
