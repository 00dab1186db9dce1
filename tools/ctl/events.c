/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl events: what bad memory has done since the mount, and with --follow what it does from now on.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "util/text.h"

#define LINE_BYTES 64u
#define POLL_MS 1000
#define STATUS_GONE 3

static const char usage[] =
	"usage: umbractl events [--json] [--follow] MOUNT\n"
	"Lists what bad memory has done since the mount: for each owner of a bad block its path, what of it is lost, and what became of it.\n"
	"  -f, --follow  goes on and prints events as they come, until it is unmounted or its pipe is closed (status 0), its daemon dies\n"
	"                (status 3), or it is interrupted; does not keep it from being unmounted, and goes on with the next daemon that a keeper starts\n"
	"  -j, --json    one JSON object a line\n"
	"For root and the user who mounted.\n";

static int take(void *arg, int letter, const char *value)
{
	(void)letter;
	(void)value;
	*(bool *)arg = true;
	return 0;
}

static void event_print(const struct umbra_event *event, const char *path)
{
	time_t when = (time_t)(event->time_ns / 1000000000);
	char text[32] = "";
	struct tm tm;

	if (localtime_r(&when, &tm))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s  %#14llx  %-8s", text, (unsigned long long)event->dev_off, event_kind_text(event->kind));
	if (event->ino)
		printf("  %s (inode %llu)", path ? path : "no name", (unsigned long long)event->ino);
	if (event->kind == UMBRA_EVENT_LOST || event->kind == UMBRA_EVENT_ZEROED)
		printf(": %u bytes in the block at %llu",
		       (unsigned)__builtin_popcountll(event->lost_lines) * LINE_BYTES,
		       (unsigned long long)event->file_off);
	printf("\n");
}

static void event_print_json(const struct umbra_event *event, const char *path)
{
	char *line = event_json(event, path);

	if (line)
		printf("%s\n", line);
	else
		fprintf(stderr, "umbractl: event %llu: out of memory\n", (unsigned long long)event->number);
	free(line);
}

static void page_print(const struct umbra_events *page, bool json)
{
	static char path[64 * 1024];
	size_t at = 0;

	if (page->missed)
		fprintf(stderr, "umbractl: %llu events are no longer kept\n",
			(unsigned long long)page->missed);
	for (uint32_t i = 0; i < page->count && at < sizeof(page->data); i++) {
		const struct umbra_event *event = (const void *)(page->data + at);
		bool named = event->path_len && event->path_len != UMBRA_OWNER_PATH_LONG;

		ctl_path_text(event->path, named ? event->path_len : 0, path, sizeof(path));
		(json ? event_print_json : event_print)(event, named ? path : NULL);
		at += event->record_size;
	}
}

/* ---- asking ---- */

struct asking {
	const char *name; /* of something on the mount */
	dev_t dev;        /* of the file system */
	uint32_t pages;   /* that have been got */
	uint32_t pid;     /* of the daemon */
	bool gone;        /* the name leads elsewhere by now */
	bool died;        /* the daemon, and there is no other one */
};

/* Numbers of events are its own: of another one all are new. 0 or an errno. */
static int daemon_look(struct asking *a, int fd, struct umbra_events *page)
{
	struct umbra_info info;

	if (ioctl(fd, UMBRA_IOC_INFO, &info))
		return errno;
	if (a->pages > 0 && info.pid != a->pid)
		page->after = 0;
	a->pid = info.pid;
	return 0;
}

/*
 * The next events. The mount is open for this moment only, never while it is printed or waited: else it would be busy. 0 or an errno.
 */
static int page_get(struct asking *a, struct umbra_events *page)
{
	int fd = open(a->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct statx st;
	/* Without asking the daemon: each question takes time. */
	int rc = fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) ? errno : 0;

	if (!rc && a->pages > 0 && makedev(st.stx_dev_major, st.stx_dev_minor) != a->dev)
		rc = ENOTTY;
	page->missed = 0;
	if (!rc)
		rc = daemon_look(a, fd, page);
	if (!rc && ioctl(fd, UMBRA_IOC_EVENTS, page))
		rc = errno;
	if (fd >= 0)
		close(fd);
	if (!rc) {
		a->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
		a->pages++;
	}
	a->gone = a->pages > 0 && (rc == ENOTTY || rc == ENOENT || rc == ENOTDIR);
	a->died = a->pages > 0 && (rc == ENOTCONN || rc == ECONNABORTED);
	return rc;
}

/* All that there are. 0 or an errno. */
static int list(struct asking *a, struct umbra_events *page, bool json)
{
	int rc;

	do {
		rc = page_get(a, page);
		if (!rc)
			page_print(page, json);
	} while (!rc && page->count > 0 && !args_stdout_failed());
	return rc;
}

/* ---- following ---- */

/* The upper end of the mount that path is on: this name stays as long as it does. NULL: errno. */
static char *mount_of(const char *path)
{
	char *root = realpath(path, NULL), *slash;
	struct stat st, above;

	if (!root || stat(root, &st)) {
		free(root);
		return NULL;
	}
	while ((slash = strrchr(root, '/')) && slash[1]) {
		char cut = slash[slash == root];

		slash[slash == root] = '\0';
		if (stat(root, &above) || above.st_dev != st.st_dev) {
			slash[slash == root] = cut;
			break;
		}
	}
	return root;
}

enum waited { TIME, UNMOUNTED, NO_READER };

/* Until it is time to ask again, or there is no more need to. */
static enum waited wait_unmount(int watch)
{
	/* A pipe that nobody reads any more says so without being written to. */
	struct pollfd p[] = { { .fd = watch, .events = POLLIN }, { .fd = STDOUT_FILENO } };

	if (poll(p, 2, POLL_MS) <= 0)
		return TIME;
	return p[0].revents ? UNMOUNTED : NO_READER;
}

/* Until it is unmounted, or something fails: an errno; or -1: its daemon has died, which has been said. */
static int follow(const char *name, struct umbra_events *page, bool json)
{
	char *root = mount_of(name);
	struct asking a = { .name = root };
	int rc = root ? 0 : errno;
	/* Tells of the end of the file system, and keeps nobody from ending it. Where there are no watches left, only its name tells. */
	int watch = inotify_init1(IN_CLOEXEC);
	enum waited waited = TIME;

	if (!rc && watch >= 0 && inotify_add_watch(watch, root, IN_DELETE_SELF) < 0) {
		close(watch);
		watch = -1;
	}
	if (!rc && chdir("/")) /* it may be on the mount */
		rc = errno;
	while (!rc && waited != NO_READER && !args_stdout_failed()) {
		rc = list(&a, page, json);
		if (!rc)
			waited = wait_unmount(watch);
		if (a.gone || waited == UNMOUNTED) {
			fprintf(stderr, "umbractl: %s: has been unmounted\n", name);
			rc = 0;
			break;
		}
		if (a.died) {
			fprintf(stderr, "umbractl: %s: its daemon has died\n", name);
			rc = -1;
		}
	}
	if (watch >= 0)
		close(watch);
	free(root);
	return rc;
}

int ctl_events(int argc, char **argv)
{
	static const struct option longs[] = { { "follow", no_argument, NULL, 'f' }, { NULL, 0, NULL, 0 } };
	bool go_on = false;
	struct ctl_args args = {
		.usage = usage,
		.letters = "f",
		.longs = longs,
		.take = take,
		.arg = &go_on,
		.min = 1,
		.max = 1,
	};
	struct umbra_events *page;
	int rc = ctl_parse(&args, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	page = calloc(1, sizeof(*page));
	if (!page)
		return ctl_fail(args.names[0], ENOMEM);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (go_on)
		rc = follow(args.names[0], page, args.json);
	else
		rc = list(&(struct asking){ .name = args.names[0] }, page, args.json);
	free(page);
	if (rc < 0)
		return STATUS_GONE;
	if (rc == EPERM)
		return ctl_say(args.names[0], "only root and the user who mounted it may list events");
	return rc ? ctl_fail(args.names[0], rc) : ctl_finish();
}
