/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A mediated device for tests whose state is a notebook: pages that are read and written through region 0. It shows what
 * the kernel's own sample device, mtty, cannot: a stream of megabytes, data that comes again in PRE_COPY, ENOMSG, short
 * reads, pages written by DMA, state changes that fail, ERROR.
 *
 * Stream, little endian:
 *   head    u32 magic, u32 version, u32 pages, u32 0
 *   record  u32 page, u32 crc of its bytes, the bytes        once for each page, and again when it was written meanwhile
 *   last    u32 LAST_RECORD, u32 crc of the whole notebook   in STOP_COPY only
 */
#include <linux/mdev.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/vfio.h>

#define LEAF		4096u		/* a page of the notebook, and of the IOVA space, bytes */
#define LEAVES_MAX	2048u		/* of a notebook, 8 MiB */
#define IO_MAX		40000u		/* most that one read or write moves, bytes: no multiple of a record */
#define IOVA_LEAVES	1024u		/* the device "writes" to guest memory below 4 MiB */
#define LAST_RECORD	0xffffffffu

/* What region 2 takes, a u32: the verb, and for DIRTY the page of the IOVA space above it. */
#define ORDER_VERB	0xffu
#define ORDER_FAIL	1u		/* the next state change fails with EIO and leaves ERROR */
#define ORDER_REFUSE	2u		/* the next state change fails with EBUSY and leaves the state */
#define ORDER_CHOKE	3u		/* the next read or write of a stream fails with EIO; the stream goes on after it */
#define ORDER_DIRTY	4u		/* writes to guest memory by DMA */

struct stream;

/* What can be made through sysfs. */
struct kind {
	struct mdev_type type;
	u32 leaves;
	bool mute;			/* its record of DMA cannot be reported, as on kernels without an iova_bitmap */
};

struct notebook {
	struct vfio_device vdev;
	const struct kind *kind;
	struct mutex state_lock;	/* state, stream; taken before lock */
	enum vfio_device_mig_state state;
	struct stream *stream;		/* of the session that goes on, or NULL */

	struct mutex lock;		/* everything below, and what is inside a stream */
	u8 *leaves;
	u8 config[256];
	u32 order;
	DECLARE_BITMAP(owed, LEAVES_MAX);	/* to be sent in the session that goes on */
	bool logging;
	DECLARE_BITMAP(dma, IOVA_LEAVES);
};

/* Whether `verb` was ordered; it happens once. With the lock held. */
static inline bool ordered(struct notebook *book, u32 verb)
{
	if (book->order != verb)
		return false;
	book->order = 0;
	return true;
}

/* Both give a file of the stream and a reference to it, or an ERR_PTR; state_lock is held. */
struct file *stream_save(struct notebook *book, bool stopped);
struct file *stream_load(struct notebook *book);
/* PRE_COPY -> STOP_COPY: the same stream goes on to its end. */
void stream_stop(struct notebook *book);
/* Its file answers ENODEV from now on. */
void stream_end(struct notebook *book);
/* Whether all of a stream has come, and is whole. */
bool stream_complete(struct notebook *book);
/* A page was written. With the lock held. */
void stream_owe(struct notebook *book, unsigned long leaf);
unsigned long stream_bytes(const struct notebook *book);
