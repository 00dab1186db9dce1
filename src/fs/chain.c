/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Chains of transactions under an intent, and the intents left by a crash.
 *
 * The inode locks of the operation are held throughout; group locks are given up at each step, so any order of groups can be taken
 * again: what a step was refused is taken first the next time, lowest number first.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/data.h"
#include "util/log.h"
#include "util/sabotage.h"

#define CHAIN_GROUPS 8u

struct groups {
	uint32_t agno[CHAIN_GROUPS];
	unsigned count;
};

static void groups_add(struct groups *g, uint32_t agno)
{
	unsigned i;

	for (i = 0; i < g->count; i++) {
		if (g->agno[i] == agno)
			return;
	}
	if (g->count == CHAIN_GROUPS)
		g->count = 0; /* another part of the device: start anew */
	for (i = g->count++; i > 0 && g->agno[i - 1] > agno; i--)
		g->agno[i] = g->agno[i - 1];
	g->agno[i] = agno;
}

static int groups_lock(struct op *op, const struct groups *g)
{
	for (unsigned i = 0; i < g->count; i++) {
		int rc = txn_lock_ag(op->tx, g->agno[i]);

		if (rc)
			return rc;
	}
	return 0;
}

struct chain_call {
	struct op *op;
	const struct groups *groups;
	int (*step)(struct op *op, void *arg);
	void *arg;
};

static int chain_call(void *arg)
{
	const struct chain_call *call = arg;
	int rc = groups_lock(call->op, call->groups);

	return rc ? rc : call->step(call->op, call->arg);
}

int op_chain(struct op *op, int (*step)(struct op *op, void *arg), void *arg)
{
	struct groups groups = { .count = 0 };
	struct chain_call call = { op, &groups, step, arg };
	unsigned poisons = 0;

	for (;;) {
		int rc = pool_guard(txn_pool(op->tx), chain_call, &call);

		if (rc == 0)
			return 0;
		if (rc == 1) {
			rc = txn_roll(op->tx);
			groups.count = 0;
			if (rc)
				return rc;
			continue;
		}
		if (rc == -EDEADLK && txn_blocked_on(op->tx) >= TXN_ORDER_AG) {
			groups_add(&groups, (uint32_t)(txn_blocked_on(op->tx) & ~TXN_ORDER_AG));
			txn_undo(op->tx);
			continue;
		}
		txn_undo(op->tx);
		if (rc == -EHWPOISON && op->bad_data)
			return rc; /* to be seen to without any lock; no chain under an intent touches data */
		if (rc == -EHWPOISON)
			rc = poisons++ < POOL_GUARD_TRIES ? 0 : -EIO;
		if (rc == -ENOBUFS)
			rc = space_refill(txn_pool(op->tx));
		if (rc)
			return rc;
	}
}

int op_chain_end(struct op *op, int rc)
{
	if (!rc)
		rc = txn_roll(op->tx);
	if (!rc)
		return 0;
	pool_fail(txn_pool(op->tx), "an operation broke off half-way; the next mount goes on with it");
	return -EIO; /* nothing that would be tried again */
}

/* ---- intents ---- */

int intent_edit(struct op *op, const struct intent_ref *ref, struct m_intent **intent)
{
	struct pool *pool = txn_pool(op->tx);
	void *unit;
	int rc = txn_lock_ag(op->tx, pool_laddr_ag(pool, ref->unit_laddr));

	if (!rc)
		rc = txn_edit(op->tx, ref->unit_laddr, MAGIC_INTENTS, &unit);
	if (!rc)
		*intent = &((struct m_intents *)unit)->in_slots[ref->index];
	return rc;
}

/* Its name when it is left out. */
static const char *intent_point(enum intent_type type)
{
	return type == INTENT_CLONE ? "intent-clone" :
	       type == INTENT_SHIFT ? "intent-shift" :
				      "intent-free-range";
}

int intent_make(struct op *op, const struct inode_attr *attr, enum intent_type type, const uint64_t args[8],
		struct intent_ref *ref)
{
	uint32_t agno = pool_laddr_ag(txn_pool(op->tx), inode_laddr(attr->ino));
	struct m_intent *it;
	int rc = space_intent_alloc(op->tx, agno, &ref->unit_laddr, &ref->index);

	if (!rc)
		rc = intent_edit(op, ref, &it);
	if (rc)
		return rc == -EBUSY ? -ENOLCK : rc;
	*it = (struct m_intent){
		.it_type = le32_of(sabotage_point(intent_point(type)) ? INTENT_NONE : type),
		.it_seq = le64_of(txn_seq(op->tx)),
		.it_ino = le64_of(attr->ino),
		.it_gen = le64_of(attr->gen),
	};
	for (unsigned i = 0; i < ARRAY_SIZE(it->it_args); i++)
		it->it_args[i] = le64_of(args ? args[i] : 0);
	return 0;
}

int intent_clear(struct op *op, const struct intent_ref *ref)
{
	struct m_intent *it;
	int rc = intent_edit(op, ref, &it);

	if (!rc && !sabotage_point("intent-clear"))
		*it = (struct m_intent){ 0 };
	return rc;
}

void intent_tree(struct op *op, const struct intent_ref *ref, uint64_t ino, struct btree *bt)
{
	*bt = (struct btree){
		.tx = op->tx,
		.kind = NODE_EXTENT,
		.root_laddr = ref->unit_laddr,
		.root_magic = MAGIC_INTENTS,
		.root_off =
			(uint16_t)(offsetof(struct m_intents, in_slots) +
				   ref->index * sizeof(struct m_intent) + offsetof(struct m_intent, it_body)),
		.root_size_bytes = INODE_DATA_SIZE,
		.owner = ino,
		.alloc = &space_bt_alloc,
	};
}

struct resume {
	struct intent_ref ref;
	uint64_t ino, gen;
	enum intent_type type;
	uint64_t args[8];
};

static int resume_one(struct op *op, void *arg)
{
	const struct resume *r = arg;
	struct inode *inode;
	struct inode_attr attr;
	int rc;

	if (r->type == INTENT_RELOCATE) {
		rc = space_unit_move_end(op->tx, r->args);
		return rc ? rc : intent_clear(op, &r->ref);
	}
	if (r->type == INTENT_LANE) {
		rc = space_lane_move_end(op->tx, r->args);
		return rc ? rc : intent_clear(op, &r->ref);
	}
	rc = op_inode(op, r->ino, true, &inode);
	if (!rc)
		rc = inode_get(op, r->ino, &attr);
	if (rc)
		return rc;
	if (attr.gen != r->gen)
		return intent_clear(op, &r->ref); /* of a file that is gone */
	switch (r->type) {
	case INTENT_TRUNCATE:
		return resume_truncate(op, inode, &r->ref, r->args[0], UINT64_MAX);
	case INTENT_FREE_RANGE:
		return resume_truncate(op, inode, &r->ref, r->args[0], r->args[1]);
	case INTENT_CLONE:
	case INTENT_DROP:
		return resume_drop(op, inode, &r->ref);
	case INTENT_SHIFT:
		return resume_shift(op, inode, &r->ref);
	default:
		return -EOPNOTSUPP;
	}
}

struct live_intents {
	uint32_t agno;
	unsigned count;
	struct resume list[INTENTS_PER_UNIT];
};

/* Copies the live intents of a group out. */
static int intents_read(struct txn *tx, void *arg)
{
	struct live_intents *live = arg;
	struct pool *pool = txn_pool(tx);
	uint64_t laddr = pool_ag_unit(pool, live->agno, AG_UNIT_INTENTS);
	const struct m_intents *m;
	const void *unit;
	/* Not txn_lock_ag(): a mount must not read the chunk tables of all groups. */
	int rc = txn_lock(tx, pool_ag_lock(pool, live->agno), true);

	live->count = 0;
	if (!rc)
		rc = txn_get(tx, laddr, MAGIC_INTENTS, &unit);
	if (rc)
		return rc;
	m = unit;
	for (uint32_t i = 0; i < INTENTS_PER_UNIT; i++) {
		const struct m_intent *it = &m->in_slots[i];
		struct resume *r = &live->list[live->count];

		if (le32_get(it->it_type) == INTENT_NONE)
			continue;
		*r = (struct resume){
			.ref = { laddr, i },
			.ino = le64_get(it->it_ino),
			.gen = le64_get(it->it_gen),
			.type = (enum intent_type)le32_get(it->it_type),
		};
		for (unsigned k = 0; k < ARRAY_SIZE(r->args); k++)
			r->args[k] = le64_get(it->it_args[k]);
		live->count++;
	}
	return 0;
}

int data_resume(struct fs *fs)
{
	struct pool *pool = fs_pool(fs);
	struct live_intents live;
	int first_rc = 0;

	for (uint32_t agno = 0; agno < pool_ag_count(pool); agno++) {
		int rc;

		live.agno = agno;
		rc = txn_run(pool, TXN_READ, intents_read, &live);
		if (rc)
			return rc;
		for (unsigned i = 0; i < live.count; i++) {
			const struct resume *r = &live.list[i];

			rc = r->type == INTENT_LANE ? space_lane_resume(pool, r->args) : 0;
			if (!rc)
				rc = op_run(fs, TXN_FREEING, NULL, resume_one, &live.list[i]);
			if (rc) {
				log_error("intent %u of group %u for inode %llu cannot be finished: %d",
					  r->ref.index, agno, (unsigned long long)r->ino, rc);
				first_rc = first_rc ? first_rc : rc;
			}
		}
	}
	return first_rc;
}
