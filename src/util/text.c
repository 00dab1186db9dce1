/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See text.h.
 */
#include "util/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <umbra/ioctl.h>

#include "util/util.h"

#define LINES_PER_BLOCK 64u

/* Length of the UTF-8 sequence that starts at s, 0: none. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	size_t len = s[0] < 0x80                 ? 1 :
		     s[0] >= 0xc2 && s[0] < 0xe0 ? 2 :
		     s[0] >= 0xe0 && s[0] < 0xf0 ? 3 :
		     s[0] >= 0xf0 && s[0] < 0xf5 ? 4 :
						   0;

	if (len == 0 || len > left)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

const char *path_text(const char *path, size_t len, char *buf, size_t buf_size)
{
	const unsigned char *s = (const unsigned char *)path;
	size_t out = 0;

	for (size_t i = 0; i < len && out + 5 < buf_size;) {
		size_t n = utf8_len(s + i, len - i);

		if (n == 0 || s[i] < 0x20 || s[i] == 0x7f) {
			out += (size_t)snprintf(buf + out, buf_size - out, "\\x%02x", s[i]);
			i++;
		} else if (s[i] == '\\') {
			buf[out++] = '\\';
			buf[out++] = '\\';
			i++;
		} else {
			memcpy(buf + out, path + i, n);
			out += n;
			i += n;
		}
	}
	buf[out] = '\0';
	return buf;
}

const char *event_kind_text(uint16_t kind)
{
	static const char *const kinds[] = {
		[UMBRA_EVENT_LOST] = "lost",     [UMBRA_EVENT_MOVED] = "moved",
		[UMBRA_EVENT_UNUSED] = "unused", [UMBRA_EVENT_PASSED] = "passed",
		[UMBRA_EVENT_META] = "metadata", [UMBRA_EVENT_ZEROED] = "zeroed",
	};

	return kind < ARRAY_SIZE(kinds) && kinds[kind] ? kinds[kind] : "unknown";
}

/* What path_text() gives has no control characters. */
static void json_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void json_file(FILE *out, const struct umbra_event *event, const char *path)
{
	const char *comma = "";

	fprintf(out, ",\"ino\":%" PRIu64 ",\"path\":", (uint64_t)event->ino);
	if (path)
		json_string(out, path);
	else
		fputs("null", out);
	fprintf(out, ",\"file_off\":%" PRIu64 ",\"lost_lines\":[", (uint64_t)event->file_off);
	for (unsigned i = 0; i < LINES_PER_BLOCK; i++) {
		if (!(event->lost_lines >> i & 1))
			continue;
		fprintf(out, "%s%u", comma, i);
		comma = ",";
	}
	fputc(']', out);
}

char *event_json(const struct umbra_event *event, const char *path)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "{\"number\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"kind\":\"%s\",\"dev_off\":%" PRIu64,
		(uint64_t)event->number, (uint64_t)event->time_ns, event_kind_text(event->kind),
		(uint64_t)event->dev_off);
	if (event->ino)
		json_file(out, event, path);
	fputc('}', out);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
