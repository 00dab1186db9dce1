/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text for people and programs: paths, which may be any bytes, and events of bad memory as JSON.
 */
#ifndef UMBRA_UTIL_TEXT_H
#define UMBRA_UTIL_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct umbra_event;

/* Bytes of a path that may not be UTF-8: as they are if they are text, else with \xHH (and \\). Cut where buf ends. Returns buf. */
const char *path_text(const char *path, size_t len, char *buf, size_t buf_size);

/* The word for an enum umbra_event_kind. */
const char *event_kind_text(uint16_t kind);

/* An event as one line of JSON, without its end; path: path_text(), or NULL. For free(3); NULL: out of memory. */
char *event_json(const struct umbra_event *event, const char *path);

#endif
