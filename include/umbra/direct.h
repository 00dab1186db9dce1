/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The protocol between a process that has file pages of a umbrafs mount mapped directly and the daemon of that mount. See docs/PROTOCOL.md.
 *
 * A Unix socket of type SOCK_SEQPACKET; a message is one datagram: struct umbra_msg and, by its type, what follows. Both ends are on one machine: integers as the
 * processor has them. Offsets and lengths are bytes and multiples of 4096 if nothing else is said. Reserved fields (pad) are zero. Every
 * request but those marked *no answer* is answered by one message with its id: the type that is named there, or UMBRA_MSG_ERROR.
 */
#ifndef UMBRA_DIRECT_H
#define UMBRA_DIRECT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#include <umbra/ioctl.h>

#define UMBRA_DIRECT_VERSION 1u

/* What the mount lets the caller have (mount option direct), and where to ask for it. On any open descriptor of the mount. */
#define UMBRA_DIRECT_READ 0x1u
#define UMBRA_DIRECT_WRITE 0x2u
struct umbra_direct {
	__u32 version;    /* (out) UMBRA_DIRECT_VERSION */
	__u32 rights;     /* (out) UMBRA_DIRECT_*, 0: none */
	char socket[108]; /* (out) path, as the daemon sees it; "" if there is none */
	__u32 pad;
};
#define UMBRA_IOC_DIRECT _IOR(UMBRA_IOC_TYPE, 20, struct umbra_direct)

enum umbra_msg_type {
	UMBRA_MSG_ERROR = 1, /* struct umbra_msg_error */
	UMBRA_MSG_DONE,      /* nothing follows */
	UMBRA_MSG_HELLO,     /* first of all, once; answered by WELCOME */
	UMBRA_MSG_WELCOME,   /* with descriptors: the device, and memory of UMBRA_SLOTS struct umbra_slot */
	UMBRA_MSG_ATTACH,    /* a file; answered by ATTACHED */
	UMBRA_MSG_ATTACHED,
	UMBRA_MSG_DETACH, /* all of it is unmapped; answered by DONE */
	UMBRA_MSG_MAP,    /* pieces of a file; answered by PIECES */
	UMBRA_MSG_PIECES,
	UMBRA_MSG_RELEASE, /* a range is unmapped; no answer */
	UMBRA_MSG_REVOKE,  /* from the daemon: let go of a range; to be answered by ACK with its id */
	UMBRA_MSG_ACK,     /* no answer */
	UMBRA_MSG_BAD,     /* the device cannot be read there; answered by LOST */
	UMBRA_MSG_LOST,
	UMBRA_MSG_BYE, /* nothing of the device is mapped any more; no answer, the socket is closed */
};

struct umbra_msg {
	__u32 size; /* of the whole message */
	__u16 type;
	__u16 pad;
	__u64 id; /* of requests: the asker's choice; of answers: that of the request */
};

struct umbra_msg_error {
	struct umbra_msg msg;
	__u32 error; /* an errno */
	__u32 pad;
};

struct umbra_msg_hello {
	struct umbra_msg msg;
	__u32 version; /* UMBRA_DIRECT_VERSION */
	__u32 rights;  /* wanted: UMBRA_DIRECT_* */
};

struct umbra_msg_welcome {
	struct umbra_msg msg;
	__u32 version;
	__u32 rights; /* given: of those that were wanted */
	__u64 session;
	__u64 device_bytes; /* to be mapped from the descriptor, from offset 0 on */
	__u64 align_bytes;  /* of mappings of the device: address, offset and length */
	__u32 revoke_ms;    /* an answer to REVOKE has to come within */
	__u32 slots;        /* in the shared memory */
};

/* The file of a token that this process took from its own descriptor (UMBRA_IOC_TOKEN, or UMBRA_IOC_MAP_TOKEN for one open for writing only). */
struct umbra_msg_attach {
	struct umbra_msg msg;
	struct umbra_token token;
};
#define UMBRA_IOC_MAP_TOKEN _IOR(UMBRA_IOC_TYPE, 21, struct umbra_token)

struct umbra_msg_attached {
	struct umbra_msg msg;
	__u32 handle;
	__u32 rights; /* as the descriptor was opened, cut to those of the session */
	__u64 ino, generation;
	__u64 size_bytes; /* of the file, any */
	__u32 slot;       /* of this file, or UMBRA_SLOT_NONE: it cannot be stored to */
	__u32 pad;
};

struct umbra_msg_detach {
	struct umbra_msg msg;
	__u32 handle;
	__u32 pad;
};

/*
 * [off, off + len) of the file. WRITE: to be stored to; blocks that are shared are copied, holes filled, as far as it goes. RELEASE: the process has
 * already let go of what it had in the range (what it had there is void in any case when the answer comes). WHOLE: the range is 2 MiB of the file that begin at a
 * multiple of that, and are to be mapped as 2 MiB of the device that do so too: the daemon moves there what lies elsewhere.
 * Errors: EBADF, EACCES, EINVAL (misaligned; not a file with blocks: use the kernel), EMFILE (too many pieces), ENOSPC ...
 */
#define UMBRA_MAP_WRITE 0x1u
#define UMBRA_MAP_RELEASE 0x2u
#define UMBRA_MAP_WHOLE 0x4u
#define UMBRA_MAP_WRITE_MAX (8u << 20) /* len with WRITE is cut to it, or to less */
#define UMBRA_WHOLE_BYTES (2u << 20)
struct umbra_msg_map {
	struct umbra_msg msg;
	__u32 handle;
	__u32 flags; /* UMBRA_MAP_* */
	__u64 off, len;
};

#define UMBRA_PIECE_WRITE 0x1u  /* may be stored to */
#define UMBRA_PIECE_HOLE 0x2u   /* no blocks: reads as zero */
#define UMBRA_PIECE_SHARED 0x4u /* with other files */
#define UMBRA_PIECE_LOST 0x8u   /* bytes of it are lost: not to be touched, use the kernel */
#define UMBRA_PIECE_PAST \
	0x10u /* past the end of the file, of which it holds nothing: to be mapped with what is before it. Only after MAP with WHOLE */
struct umbra_piece {
	__u64 file_off, dev_off, len;
	__u32 flags;
	__u32 pad;
};
#define UMBRA_PIECES_MAX 256u
/* From off of the request on, in order, without gaps; perhaps not all of the range. None: it lies past the end of the file. */
struct umbra_msg_pieces {
	struct umbra_msg msg;
	__u64 size_bytes; /* of the file, any; bytes of the last block past it are not the file's */
	__u32 count;
	__u32 pad;
	struct umbra_piece pieces[];
};

struct umbra_msg_release {
	struct umbra_msg msg;
	__u32 handle;
	__u32 pad;
	__u64 off, len;
};

#define UMBRA_REVOKE_WRITE 0x1u /* reading may go on, storing must not */
struct umbra_msg_revoke {
	struct umbra_msg msg; /* id: for ACK */
	__u32 handle;
	__u32 flags; /* UMBRA_REVOKE_* */
	__u64 off, len;
};

struct umbra_msg_bad {
	struct umbra_msg msg;
	__u32 handle;
	__u32 pad;
	__u64 off; /* of the block, in the file */
};
/* What is lost of the block now; 0: nothing, map it again. */
struct umbra_msg_lost {
	struct umbra_msg msg;
	__u64 lost_lines; /* bit i: bytes 64 * i to 64 * i + 63 */
};

/* Shared with the daemon, one for each attached file. */
struct umbra_slot {
	__u64 stored; /* set to 1 (atomically) after stores to the file: its times are to be moved */
	__u64 pad;
};
#define UMBRA_SLOTS 4096u /* so many files may be attached for writing */
#define UMBRA_SLOT_NONE 0xffffffffu

#define UMBRA_REQUESTS_MAX 16u /* not answered yet; one more is answered by EBUSY */
#define UMBRA_MSG_MAX (sizeof(struct umbra_msg_pieces) + UMBRA_PIECES_MAX * sizeof(struct umbra_piece))

#endif
