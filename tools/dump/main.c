/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: prints what lies on a pool, unit by unit or tree by tree, and saves its metadata for a bug report.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../args.h"
#include "dump.h"
#include "util/log.h"

#define STATUS_FAILED 1
#define STATUS_USAGE 2

static const char help[] =
	"usage: umbradump [options] POOL [WHAT]\n"
	"Prints metadata of an unmounted umbrafs pool as it lies there, sound or not. Changes nothing.\n"
	"\n"
	"WHAT is one of\n"
	"  super                  both copies of the superblock (the default)\n"
	"  group N [PART]         header of group N; PART: chunks, bitmap, intents, remaps, or one of its\n"
	"                         trees: refcounts, rmap, inodes, orphans, forwards, losses\n"
	"  inode INO [PART]       an inode; PART: data (extents or entries), attrs (attributes and parents)\n"
	"  unit LADDR             the metadata unit at a logical address\n"
	"  journal                records in the lanes and their mirrors\n"
	"\n"
	"  -c, --copy 0|1         the primary or the mirror, instead of the first that is sound\n"
	"  -x, --hex              the bytes too\n"
	"  -s, --save IMAGE       write the metadata, without contents of files, to a new sparse file that\n"
	"                         fsck.umbrafs and umbrafs open like the pool\n"
	"  -n, --hide-names       with --save: replace names, and empty attributes and symlinks, too\n"
	"  -h, --help             this text\n"
	"  -V, --version          version\n"
	"\n"
	"Exit status: 0 done, 1 failed or something could not be read, 2 usage.\n";

struct what {
	const char *save;
	bool hide_names;
	char **words;
	int count;
};

int dump_fail(const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fputs("umbradump: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return STATUS_FAILED;
}

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "umbradump: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, " (try --help)\n");
	return STATUS_USAGE;
}

static bool number(const char *text, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 0);
	return *text >= '0' && *text <= '9' && !*end && !errno;
}

static int super_show(const struct dump *d)
{
	const uint64_t blks[2] = { 0, d->super->size_blk - 1 };
	_Alignas(64) struct m_super m;
	struct super super;
	int rc = 0;

	for (unsigned i = 0; i < 2; i++) {
		const char *why = NULL;

		if (d->copy != DUMP_COPY_BEST && d->copy != i)
			continue;
		printf("%s, block %" PRIu64 "\n", i ? "copy" : "superblock", blks[i]);
		if (dax_load(d->dax, &m, blks[i] * BLOCK_SIZE, sizeof(m), NULL))
			why = "bad memory";
		else
			why = unit_check_header(&m, sizeof(m), MAGIC_SUPER, OWNER_SUPER, &d->super->uuid);
		if (why) {
			rc = dump_fail("superblock in block %" PRIu64 ": %s", blks[i], why);
			continue;
		}
		super_decode(&super, &m);
		dump_super_print(&super);
		if (d->hex)
			dump_hex_print(&m, sizeof(m));
	}
	return rc;
}

/* Reads the unit and tells about it; *why NULL when it is sound. */
static int unit_load(const struct dump *d, uint64_t laddr, uint32_t magic, void *buf, const char **why)
{
	int copy = dump_unit_read(d, laddr, magic, buf, why);

	if (copy < 0)
		return dump_fail("unit 0x%" PRIx64 ": %s", laddr, *why);
	printf("unit 0x%" PRIx64 ", copy %d%s%s\n", laddr, copy, *why ? ": NOT SOUND: " : "",
	       *why ? *why : "");
	return 0;
}

static int unit_show(const struct dump *d, uint64_t laddr, uint32_t magic)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const char *why;

	if (unit_load(d, laddr, magic, buf, &why))
		return STATUS_FAILED;
	dump_unit_print(d, laddr, buf);
	if (d->hex)
		dump_hex_print(buf, magic == MAGIC_INODE ? INODE_SIZE : BLOCK_SIZE);
	return why ? STATUS_FAILED : 0;
}

static int units_show(const struct dump *d, uint32_t agno, uint32_t first, uint32_t count, uint32_t magic)
{
	int rc = 0;

	for (uint32_t i = 0; i < count; i++)
		rc |= unit_show(d, pool_ag_unit(d->pool, agno, first + i), magic);
	return rc;
}

static int group_show(const struct dump *d, uint32_t agno, const char *part)
{
	static const char *const trees[AG_TREES] = { "refcounts", "rmap",     "inodes",
						     "orphans",   "forwards", "losses" };
	uint32_t chunks = (uint32_t)(d->super->ag_size_blk / CHUNK_BLOCKS);
	uint64_t header = pool_ag_unit(d->pool, agno, AG_UNIT_HEADER);
	_Alignas(64) struct m_ag m;
	const char *why;

	if (!part)
		return unit_show(d, header, MAGIC_AG);
	if (strcmp(part, "intents") == 0)
		return units_show(d, agno, AG_UNIT_INTENTS, 1, MAGIC_INTENTS);
	if (strcmp(part, "remaps") == 0)
		return units_show(d, agno, AG_UNIT_REMAP, 1, MAGIC_REMAP);
	if (strcmp(part, "chunks") == 0)
		return units_show(d, agno, AG_UNIT_TABLE, ag_table_units(chunks), MAGIC_CHUNKS);
	if (strcmp(part, "bitmap") == 0)
		return units_show(d, agno, AG_UNIT_TABLE + ag_table_units(chunks), ag_bitmap_units(chunks),
				  MAGIC_BITMAP);
	for (unsigned i = 0; i < AG_TREES; i++) {
		if (strcmp(part, trees[i]))
			continue;
		if (unit_load(d, header, MAGIC_AG, &m, &why))
			return STATUS_FAILED;
		return dump_tree_print(d, m.ag_roots[i], AG_ROOT_SIZE, ag_tree_kind((enum ag_tree)i));
	}
	return usage("group: no part '%s'", part);
}

static int inode_show(const struct dump *d, uint64_t ino, const char *part)
{
	_Alignas(64) struct m_inode m;
	uint64_t laddr = ino << INODE_SHIFT;
	const char *why;

	if (!part)
		return unit_show(d, laddr, MAGIC_INODE);
	if (strcmp(part, "data") && strcmp(part, "attrs"))
		return usage("inode: no part '%s'", part);
	if (unit_load(d, laddr, MAGIC_INODE, &m, &why))
		return STATUS_FAILED;
	if (part[0] == 'a')
		return dump_tree_print(d, m.di_attr, INODE_ATTR_SIZE, NODE_ATTR);
	if (m.di_data_format == DATA_DIR)
		return dump_tree_print(d, m.di_data, INODE_DATA_SIZE, NODE_DIR);
	if (m.di_data_format == DATA_EXTENTS)
		return dump_tree_print(d, m.di_data, INODE_DATA_SIZE, NODE_EXTENT);
	printf("%s\n", m.di_data_format == DATA_INLINE ? "inline, in the inode" : "no data");
	return 0;
}

static int journal_show(const struct dump *d)
{
	uint8_t *lane = malloc(d->super->lane_size_bytes);
	int rc = 0;

	if (!lane)
		return dump_fail("%s", strerror(ENOMEM));
	for (uint32_t i = 0; i < d->super->lane_count * 2; i++) {
		uint64_t blk = i % 2 ? d->super->lanes[i / 2].mirror_blk : d->super->lanes[i / 2].primary_blk;
		const char *why = "bad memory";

		printf("lane %u %s, block %" PRIu64 ": ", i / 2, i % 2 ? "mirror" : "primary", blk);
		if (dax_load(d->dax, lane, blk * BLOCK_SIZE, d->super->lane_size_bytes, NULL) == 0)
			why = record_check(lane, d->super->lane_size_bytes, i / 2, &d->super->uuid);
		else
			rc = STATUS_FAILED;
		if (why && le32_get(((const struct m_record *)(const void *)lane)->rc_magic) == 0)
			printf("empty\n");
		else
			printf("%s\n", why ? why : "a record");
		if (!why)
			dump_unit_print(d, 0, lane);
	}
	free(lane);
	return rc;
}

static int show(const struct dump *d, const struct what *w)
{
	const char *word = w->count > 0 ? w->words[0] : "super";
	const char *part = w->count > 2 ? w->words[2] : NULL;
	uint64_t value = 0;

	if (strcmp(word, "super") == 0 && w->count <= 1)
		return super_show(d);
	if (strcmp(word, "journal") == 0 && w->count == 1)
		return journal_show(d);
	if (strcmp(word, "super") == 0 || strcmp(word, "journal") == 0)
		return usage("one argument too many: '%s'", w->words[1]);
	if (strcmp(word, "group") && strcmp(word, "inode") && strcmp(word, "unit"))
		return usage("there is no '%s' to print", word);
	if (w->count < 2 || !number(w->words[1], &value))
		return usage("%s: a number is missing", word);
	if (w->count > (word[0] == 'u' ? 2 : 3))
		return usage("one argument too many: '%s'", w->words[w->count - 1]);
	if (word[0] == 'g' && value >= d->super->ag_count)
		return dump_fail("there are %u groups", d->super->ag_count);
	if (word[0] == 'g')
		return group_show(d, (uint32_t)value, part);
	if (word[0] == 'i')
		return value < 1ull << 55 ? inode_show(d, value, part) :
					    dump_fail("inode numbers are below 2^55");
	return unit_show(d, value, 0);
}

static int arguments(struct dump *d, struct what *w, int argc, char **argv, bool *done)
{
	static const struct option longs[] = {
		{ "copy", required_argument, NULL, 'c' },
		{ "hex", no_argument, NULL, 'x' },
		{ "save", required_argument, NULL, 's' },
		{ "hide-names", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":c:xs:nhV", longs, NULL)) != -1) {
		if (c == 'c' && (strcmp(optarg, "0") == 0 || strcmp(optarg, "1") == 0)) {
			d->copy = (unsigned)(optarg[0] - '0');
		} else if (c == 'c') {
			return usage("--copy %s: must be 0 or 1", optarg);
		} else if (c == 'x') {
			d->hex = true;
		} else if (c == 's') {
			w->save = optarg;
		} else if (c == 'n') {
			w->hide_names = true;
		} else if (c == 'h' || c == 'V') {
			*done = true;
			fputs(c == 'h' ? help : "umbradump " UMBRA_VERSION "\n", stdout);
			return args_stdout_failed() ? STATUS_FAILED : 0;
		} else {
			return usage(c == ':' ? "option '%s' needs a value" : "unknown option '%s'",
				     argv[optind - 1]);
		}
	}
	if (optind == argc || !*argv[optind])
		return usage("%s", "missing POOL");
	w->words = argv + optind + 1;
	w->count = argc - optind - 1;
	if (w->hide_names && !w->save)
		return usage("%s", "--hide-names goes with --save");
	if (w->save && w->count)
		return usage("one argument too many: '%s'", w->words[0]);
	return 0;
}

int main(int argc, char **argv)
{
	const struct pool_opts pool_opts = { .readonly = true, .no_replay = true, .as_it_is = true };
	const struct dax_opts dax_opts = { .readonly = true };
	struct dump d = { .copy = DUMP_COPY_BEST };
	struct what w = { 0 };
	bool done = false;
	char why[1024];
	int rc;

	log_setup("umbradump", LOG_LEVEL_ERROR, false);
	rc = arguments(&d, &w, argc, argv, &done);
	if (rc || done)
		return rc;
	if (dax_open(w.words[-1], &dax_opts, &d.dax, why, sizeof(why)))
		return dump_fail("%s", why);
	rc = pool_open(d.dax, &pool_opts, &d.pool, why, sizeof(why));
	if (rc) {
		rc = dump_fail("%s: %s", w.words[-1], why);
	} else {
		d.super = pool_super(d.pool);
		rc = w.save ? dump_image_save(&d, w.save, w.hide_names) : show(&d, &w);
		pool_close(d.pool, false);
	}
	dax_close(d.dax);
	if (args_stdout_failed() && rc == 0)
		rc = STATUS_FAILED;
	return rc;
}
