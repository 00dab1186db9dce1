/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A transaction without a device, for tests of the tree alone: units in memory by logical address, images as the real one has them
 * (what was read before an edit stays as it was), commit and abort, nodes from a counter that can run dry.
 *
 * Linked instead of the txn floor, never with it. An address that was given back or never handed out stops the test,
 * unless the test is about media that lies.
 */
#ifndef UMBRA_TESTS_FAKE_TXN_H
#define UMBRA_TESTS_FAKE_TXN_H

#include "btree/btree.h"

/* Lives over commits and aborts, as the pool would. */
struct txn *fake_txn_new(void);
void fake_txn_free(struct txn *tx);

/* A zeroed committed unit that is no node, at the next free address. */
uint64_t fake_unit_add(struct txn *tx, uint32_t magic, uint64_t owner);
/* The committed bytes, to look at or to spoil; NULL if there is no such unit. */
void *fake_unit_bytes(struct txn *tx, uint64_t laddr);

/* Runs node_body_check on each node that changed: the reason of the first that is not sound, or NULL. */
const char *fake_txn_commit(struct txn *tx);
void fake_txn_abort(struct txn *tx);

/* After count more allocations they fail with -ENOSPC; negative: never. */
void fake_alloc_limit(struct txn *tx, long count);
/* Unknown addresses give -EUCLEAN. */
void fake_expect_lies(struct txn *tx);
/* Nodes in use, and the highest address that was ever handed out. */
uint64_t fake_node_count(const struct txn *tx);
uint64_t fake_laddr_max(const struct txn *tx);
/* Calls of txn_get so far. */
uint64_t fake_get_count(const struct txn *tx);

extern const struct bt_alloc fake_alloc;

#endif
