/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See kept.h. A receipt lies near a place that follows from its number, so that it is found without a table.
 */
#include "fuse/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dax/dax.h"
#include "fuse/token.h"

#define RECEIPTS 16384u
#define PROBES 64u
#define PAGE 4096u

_Thread_local struct txn_receipt *kept_now;

struct kept {
	int fd;
	bool is_taken;
	struct kept_head *head; /* all of the memory */
	struct fs_ledger ledger;
};

static void kept_look(struct kept *kept)
{
	struct kept_head *head = kept->head;
	char *base = (char *)head;

	kept->ledger = (struct fs_ledger){
		.cells = (void *)(base + head->cells_off),
		.cell_count = head->cell_count,
		.receipts = (void *)(base + head->receipts_off),
		.receipt_count = head->receipt_count,
	};
}

int kept_new(uint64_t cell_count, struct kept **out)
{
	struct kept_head head = {
		.magic = KEPT_MAGIC,
		.version = KEPT_VERSION,
		.head_size = sizeof(head),
		.receipt_count = RECEIPTS,
		.tokens_size = token_table_size(),
		.cell_count = cell_count,
	};
	struct kept *kept = calloc(1, sizeof(*kept));

	if (!kept)
		return -ENOMEM;
	head.receipts_off = u64_align_up(sizeof(head), PAGE);
	head.tokens_off = head.receipts_off + RECEIPTS * sizeof(struct txn_receipt);
	head.cells_off = u64_align_up(head.tokens_off + head.tokens_size, PAGE);
	head.size_bytes = u64_align_up(head.cells_off + cell_count * sizeof(struct ledger_cell), PAGE);
	kept->head = dax_shared_alloc(head.size_bytes, &kept->fd);
	if (!kept->head) {
		free(kept);
		return -ENOMEM;
	}
	*kept->head = head;
	kept_look(kept);
	*out = kept;
	return 0;
}

static bool head_is_sound(const struct kept_head *head, uint64_t size_bytes)
{
	return head->magic == KEPT_MAGIC && head->version == KEPT_VERSION &&
	       head->head_size == sizeof(*head) && head->size_bytes == size_bytes &&
	       head->receipt_count == RECEIPTS && head->tokens_size == token_table_size() &&
	       head->init_size <= KEPT_INIT_MAX && head->answer_size <= KEPT_INIT_MAX &&
	       head->receipts_off < head->tokens_off && head->tokens_off < head->cells_off &&
	       head->cells_off <= size_bytes &&
	       (size_bytes - head->cells_off) / sizeof(struct ledger_cell) >= head->cell_count;
}

int kept_take(int fd, struct kept **out)
{
	struct kept *kept = calloc(1, sizeof(*kept));
	struct stat st;
	int rc = -ENOMEM;

	if (!kept)
		return rc;
	kept->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (kept->fd < 0 || fstat(kept->fd, &st) || (size_t)st.st_size < sizeof(*kept->head)) {
		rc = -EPROTO;
		goto out_free;
	}
	kept->head = dax_shared_map(kept->fd, (size_t)st.st_size);
	if (!kept->head)
		goto out_free;
	if (!head_is_sound(kept->head, (uint64_t)st.st_size)) {
		dax_shared_free(kept->head, (size_t)st.st_size);
		rc = -EPROTO;
		goto out_free;
	}
	kept->is_taken = true;
	kept_look(kept);
	*out = kept;
	return 0;
out_free:
	if (kept->fd >= 0)
		close(kept->fd);
	free(kept);
	return rc;
}

void kept_close(struct kept *kept)
{
	if (!kept)
		return;
	dax_shared_free(kept->head, kept->head->size_bytes);
	close(kept->fd);
	free(kept);
}

int kept_fd(const struct kept *kept)
{
	return kept->fd;
}

bool kept_is_taken(const struct kept *kept)
{
	return kept && kept->is_taken;
}

struct kept_head *kept_head(struct kept *kept)
{
	return kept->head;
}

void *kept_tokens(struct kept *kept)
{
	return (char *)kept->head + kept->head->tokens_off;
}

const struct fs_ledger *kept_ledger(const struct kept *kept)
{
	return &kept->ledger;
}

void kept_applied(void *arg, uint64_t seq)
{
	struct kept *kept = arg;

	for (uint32_t i = 0; i < kept->ledger.receipt_count; i++)
		if (atomic_load(&kept->ledger.receipts[i].unique))
			receipt_settle(&kept->ledger.receipts[i], seq);
}

bool kept_init(struct kept *kept, const void *request, size_t size)
{
	if (size > sizeof(kept->head->init))
		return false;
	memcpy(kept->head->init, request, size);
	kept->head->init_size = (uint32_t)size;
	return true;
}

void kept_agree(struct kept *kept, const struct iovec *iov, int count)
{
	struct kept_head *head = kept->head;

	head->answer_size = 0;
	for (int i = 1; i < count; i++) {
		if (iov[i].iov_len > sizeof(head->answer) - head->answer_size)
			return;
		memcpy(head->answer + head->answer_size, iov[i].iov_base, iov[i].iov_len);
		head->answer_size += (uint32_t)iov[i].iov_len;
	}
	atomic_store(&head->is_agreed, 1);
}

/* ---- receipts ---- */

/* Numbers of requests are even. */
static struct txn_receipt *receipt_at(struct kept *kept, uint64_t unique, unsigned probe)
{
	return &kept->ledger.receipts[(unique / 2 + probe) % kept->ledger.receipt_count];
}

struct txn_receipt *kept_claim(struct kept *kept, uint64_t unique)
{
	for (unsigned i = 0; i < PROBES; i++) {
		struct txn_receipt *r = receipt_at(kept, unique, i);
		uint64_t nobody = 0;

		if (atomic_load_explicit(&r->unique, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong(&r->unique, &nobody, unique))
			continue;
		return r;
	}
	/* Never 0 again by itself. */
	if (atomic_load(&kept->head->receipts_short) != UINT32_MAX)
		atomic_fetch_add(&kept->head->receipts_short, 1);
	return NULL;
}

void kept_settled(struct kept *kept, uint32_t short_count)
{
	/* Of those that had none since nobody knows. */
	(void)atomic_compare_exchange_strong(&kept->head->receipts_short, &short_count, 0);
}

struct txn_receipt *kept_find(struct kept *kept, uint64_t unique)
{
	for (unsigned i = 0; i < PROBES; i++) {
		struct txn_receipt *r = receipt_at(kept, unique, i);

		if (atomic_load(&r->unique) == unique)
			return r;
	}
	return NULL;
}

/* It says nothing when somebody claims it. */
void kept_release(struct txn_receipt *r)
{
	atomic_store_explicit(&r->flags, 0, memory_order_relaxed);
	atomic_store_explicit(&r->done_seq, 0, memory_order_relaxed);
	r->tried_seq = 0;
	r->tried_value = 0;
	r->tried_result = 0;
	r->result = 0;
	r->value = 0;
	r->tried_flags = 0;
	r->source = 0;
	atomic_store_explicit(&r->unique, 0, memory_order_release);
}

static int unique_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void kept_sweep(struct kept *kept, const uint64_t *uniques, size_t count)
{
	for (uint32_t i = 0; i < kept->ledger.receipt_count; i++) {
		struct txn_receipt *r = &kept->ledger.receipts[i];
		uint64_t unique = atomic_load(&r->unique);

		if (unique && !(count && bsearch(&unique, uniques, count, sizeof(*uniques), unique_compare)))
			kept_release(r);
	}
}
