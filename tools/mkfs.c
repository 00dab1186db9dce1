/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mkfs.umbrafs: makes an empty file system on a device-DAX node or in a plain file. Looks for what is there already before it
 * changes anything.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "dax/dax.h"
#include "mkfs_probe.h"
#include "txn/format.h"
#include "util/cli.h"
#include "util/log.h"

#define STATUS_FAILED 1
#define STATUS_USAGE 2
#define BUSY_WAIT_MS 2000 /* a daemon that is just unmounting */
#define BUSY_STEP_MS 20

static const char help[] =
	"usage: mkfs.umbrafs [options] POOL\n"
	"Makes an empty umbrafs file system on POOL, a device-DAX node (/dev/daxX.Y) or a plain file.\n"
	"\n"
	"  -f, --force            overwrite another file system, or an umbrafs pool\n"
	"  -s, --size SIZE        of a plain file, which is made or resized (512M, 16G, 1T ...)\n"
	"  -L, --label LABEL      a name of at most 32 bytes\n"
	"  -m, --metadata=KIND    dup (default): everything but file data is kept twice; single: once\n"
	"      --ag-size SIZE     of the allocation groups (default: by the size of the pool)\n"
	"  -U, --uuid UUID        instead of a random one\n"
	"  -q, --quiet            print nothing but errors\n"
	"      --dir-hash-bits N  shorter hashes of names, to test collisions\n"
	"  -h, --help             this text\n"
	"  -V, --version          version\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 usage.\n";

struct mkfs {
	const char *path;
	uint64_t size_bytes;
	bool force, quiet;
	struct format_opts format;
	struct m_uuid uuid;
};

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "mkfs.umbrafs: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, " (try --help)\n");
	return STATUS_USAGE;
}

static bool uuid_parse(const char *text, struct m_uuid *uuid)
{
	unsigned bytes = 0;

	for (const char *c = text; *c; c++) {
		unsigned value;

		if (*c == '-')
			continue;
		if (bytes == sizeof(uuid->b) || !strchr("0123456789abcdefABCDEF", *c) || !c[1] ||
		    !strchr("0123456789abcdefABCDEF", c[1]) || sscanf(c, "%2x", &value) != 1)
			return false;
		uuid->b[bytes++] = (uint8_t)value;
		c++;
	}
	return bytes == sizeof(uuid->b);
}

/* 0, or the status to exit with; *done: nothing more to do. */
static int option(struct mkfs *m, int c, const char *value, bool *done)
{
	unsigned long bits;
	char *end;

	switch (c) {
	case 'f':
		m->force = true;
		return 0;
	case 'q':
		m->quiet = true;
		return 0;
	case 's':
		if (!args_size(value, &m->size_bytes) || m->size_bytes == 0)
			return usage(
				"--size %s: not a size (bytes, or with K, M, G, T for powers of 1024; no MB)",
				value);
		return 0;
	case 'L':
		if (strlen(value) > SUPER_LABEL_SIZE)
			return usage("--label %s: longer than 32 bytes", value);
		m->format.label = value;
		return 0;
	case 'm':
		if (strcmp(value, "dup") && strcmp(value, "single"))
			return usage("--metadata=%s: must be dup or single", value);
		m->format.metadata_single = strcmp(value, "single") == 0;
		return 0;
	case 'a':
		if (!args_size(value, &m->format.ag_size_bytes) || m->format.ag_size_bytes == 0)
			return usage(
				"--ag-size %s: not a size (bytes, or with K, M, G, T for powers of 1024; no MB)",
				value);
		return 0;
	case 'U':
		if (!uuid_parse(value, &m->uuid))
			return usage("--uuid %s: not a UUID", value);
		m->format.uuid = &m->uuid;
		return 0;
	case 'b':
		bits = strtoul(value, &end, 10);
		if (!*value || *end || bits < 5 || bits > 63)
			return usage("--dir-hash-bits %s: must be from 5 to 63", value);
		m->format.dir_hash_bits = (uint32_t)bits;
		return 0;
	default:
		*done = true;
		fputs(c == 'h' ? help : "mkfs.umbrafs " UMBRA_VERSION "\n", stdout);
		return args_stdout_failed() ? STATUS_FAILED : 0;
	}
}

static int arguments(struct mkfs *m, int argc, char **argv, bool *done)
{
	static const struct option longs[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "size", required_argument, NULL, 's' },
		{ "label", required_argument, NULL, 'L' },
		{ "metadata", required_argument, NULL, 'm' },
		{ "ag-size", required_argument, NULL, 'a' },
		{ "uuid", required_argument, NULL, 'U' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "dir-hash-bits", required_argument, NULL, 'b' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	static const char letters[] = ":fs:L:m:U:qhV";
	int c, rc;

	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == ':')
			return usage("option '%s' needs a value", argv[optind - 1]);
		if (c == '?')
			return usage("unknown option '%s'", cli_refused(argv, letters));
		rc = option(m, c, optarg, done);
		if (rc || *done)
			return rc;
	}
	if (optind == argc || !*argv[optind])
		return usage("%s", "missing POOL");
	if (optind + 1 < argc)
		return usage("one argument too many: '%s'", argv[optind + 1]);
	m->path = argv[optind];
	return 0;
}

static void summary(const struct mkfs *m, const struct super *super, const struct dax *dax)
{
	char size[ARGS_SIZE_TEXT], ag[ARGS_SIZE_TEXT], lane[ARGS_SIZE_TEXT];
	const uint8_t *u = super->uuid.b;

	printf("%s: umbrafs %u.%u, %s", m->path, super->major, super->minor,
	       args_size_text(super->size_blk * BLOCK_SIZE, size, sizeof(size)));
	if (super->label[0])
		printf(", label %s", super->label);
	printf("\n  uuid      ");
	for (unsigned i = 0; i < sizeof(super->uuid.b); i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
	printf("\n  groups    %u of %s\n", super->ag_count,
	       args_size_text(super->ag_size_blk * BLOCK_SIZE, ag, sizeof(ag)));
	printf("  metadata  %s\n", super->incompat & FEATURE_INCOMPAT_META_DUP ? "dup" : "single");
	printf("  journal   %u lanes of %s, twice\n", super->lane_count,
	       args_size_text(super->lane_size_bytes, lane, sizeof(lane)));
	printf("  device    %s\n", dax_is_device(dax) ? "device-DAX" : "plain file");
}

static int open_wait(const char *path, const struct dax_opts *opts, struct dax **dax, char *why,
		     size_t why_size)
{
	const struct timespec step = { 0, BUSY_STEP_MS * 1000000 };

	for (int waited_ms = 0;; waited_ms += BUSY_STEP_MS) {
		int rc = dax_open(path, opts, dax, why, why_size);

		if (rc != -EBUSY || waited_ms >= BUSY_WAIT_MS)
			return rc;
		nanosleep(&step, NULL);
	}
}

static int make(struct mkfs *m, char *why, size_t why_size)
{
	struct dax_opts opts = { .create = m->size_bytes != 0, .size_bytes = m->size_bytes };
	bool is_new = access(m->path, F_OK) != 0;
	char reason[512];
	struct super super;
	struct dax *dax;
	int rc = open_wait(m->path, &opts, &dax, why, why_size);

	if (rc)
		return rc;
	rc = pool_format(dax, &m->format, &super, reason, sizeof(reason));
	if (rc) {
		snprintf(why, why_size, "%s: %s", m->path, reason);
	} else {
		dax_fence(dax);
		if (!dax_is_device(dax) && fsync(dax_fd(dax))) {
			rc = -errno;
			snprintf(why, why_size, "%s: %s", m->path, strerror(-rc));
		}
	}
	if (rc == 0 && !m->quiet)
		summary(m, &super, dax);
	dax_close(dax);
	if (rc && is_new)
		unlink(m->path);
	return rc;
}

int main(int argc, char **argv)
{
	struct mkfs m = { .format = { .root_uid = getuid(), .root_gid = getgid() } };
	bool done = false;
	char why[1024];
	struct stat st;
	int rc;

	log_setup("mkfs.umbrafs", LOG_LEVEL_INFO, false);
	rc = arguments(&m, argc, argv, &done);
	if (rc || done)
		return rc;
	if (m.size_bytes && stat(m.path, &st) == 0 && !S_ISREG(st.st_mode)) {
		fprintf(stderr, "mkfs.umbrafs: %s: --size is for plain files; this has a size of its own\n",
			m.path);
		return STATUS_USAGE;
	}
	if (m.size_bytes && m.size_bytes < FORMAT_SIZE_MIN) {
		fprintf(stderr, "mkfs.umbrafs: --size: too small, a pool has at least %u MiB\n",
			(unsigned)(FORMAT_SIZE_MIN >> 20));
		return STATUS_FAILED;
	}
	if (m.size_bytes == 0 && stat(m.path, &st) && errno == ENOENT) {
		fprintf(stderr, "mkfs.umbrafs: %s: not there; --size SIZE makes a plain file\n", m.path);
		return STATUS_FAILED;
	}
	rc = m.force ? 0 : probe_content(m.path, why, sizeof(why));
	if (rc > 0)
		fprintf(stderr, "mkfs.umbrafs: %s: there is %s on it; --force overwrites it\n", m.path, why);
	else if (rc == 0)
		rc = make(&m, why, sizeof(why));
	if (rc < 0)
		fprintf(stderr, "mkfs.umbrafs: %s\n", why);
	if (rc == 0 && args_stdout_failed())
		rc = -EIO;
	return rc ? STATUS_FAILED : 0;
}
