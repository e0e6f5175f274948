// SPDX-License-Identifier: GPL-2.0-only
/* The two kinds of data_fd: one that saves, one that loads. */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/crc32.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "notebook.h"

#define MAGIC	0x4b4f4f42u
#define VERSION	1u

struct head { __le32 magic, version, leaves, zero; };
struct record { __le32 leaf, crc; u8 bytes[LEAF]; };
#define RECORD_HEAD offsetof(struct record, bytes)

struct stream {
	struct notebook *book;
	struct file *file;
	bool ended;		/* the session is over: ENODEV */
	bool stopped;		/* saving: in STOP_COPY */
	bool begun;		/* the head was made, or has come */
	bool last;		/* the last record was made, or has come */
	bool broken;		/* loading: what has come is no stream of ours */
	u32 next;		/* saving: the page that the first pass has come to */
	size_t filled, taken;	/* of `piece`: bytes that are there, bytes that were read */
	union { struct head head; struct record record; } piece;
};

unsigned long stream_bytes(const struct notebook *book)
{
	return sizeof(struct head) + book->kind->leaves * sizeof(struct record) + RECORD_HEAD;
}

static u32 crc_of(const u8 *bytes, size_t length)
{
	return crc32_le(~0, bytes, length);
}

static struct head right_head(const struct notebook *book)
{
	return (struct head){ cpu_to_le32(MAGIC), cpu_to_le32(VERSION), cpu_to_le32(book->kind->leaves) };
}

/* Makes the next piece of a stream that saves; false: there is none now. */
static bool next_piece(struct stream *s)
{
	struct notebook *book = s->book;
	const u32 leaves = book->kind->leaves;
	struct record *record = &s->piece.record;
	unsigned long leaf;

	s->taken = s->filled = 0;
	if (!s->begun) {
		s->piece.head = right_head(book);
		s->begun = true;
		s->filled = sizeof(struct head);
		return true;
	}
	leaf = s->next < leaves ? s->next++ : find_first_bit(book->owed, leaves);
	if (leaf < leaves) {
		__clear_bit(leaf, book->owed);
		memcpy(record->bytes, book->leaves + leaf * LEAF, LEAF);
		record->leaf = cpu_to_le32(leaf);
		record->crc = cpu_to_le32(crc_of(record->bytes, LEAF));
		s->filled = sizeof(*record);
		return true;
	}
	if (!s->stopped || s->last)
		return false;
	record->leaf = cpu_to_le32(LAST_RECORD);
	record->crc = cpu_to_le32(crc_of(book->leaves, book->kind->leaves * LEAF));
	s->filled = RECORD_HEAD;
	s->last = true;
	return true;
}

static ssize_t save_read(struct file *file, char __user *to, size_t length, loff_t *pos)
{
	struct stream *s = file->private_data;
	ssize_t done = 0;

	length = min_t(size_t, length, IO_MAX);
	mutex_lock(&s->book->lock);
	if (s->ended)
		done = -ENODEV;
	else if (ordered(s->book, ORDER_CHOKE))
		done = -EIO;
	while (done >= 0 && done < length) {
		size_t part;

		if (s->taken == s->filled && !next_piece(s))
			break;
		part = min(s->filled - s->taken, length - done);
		if (copy_to_user(to + done, (u8 *)&s->piece + s->taken, part)) {
			done = -EFAULT;
			break;
		}
		s->taken += part;
		done += part;
	}
	if (!done && length && !s->stopped)
		done = -ENOMSG;
	mutex_unlock(&s->book->lock);
	return done;
}

static long save_ioctl(struct file *file, unsigned int request, unsigned long argument)
{
	const size_t size = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct stream *s = file->private_data;
	struct vfio_precopy_info info = {};
	u32 left;
	long ret = 0;

	if (request != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)argument, size))
		return -EFAULT;
	if (info.argsz < size)
		return -EINVAL;
	mutex_lock(&s->book->lock);
	if (s->ended) {
		ret = -ENODEV;
	} else if (s->stopped) {
		ret = -EINVAL;
	} else {
		info.flags = 0;
		left = s->book->kind->leaves - s->next;
		info.initial_bytes = left * sizeof(struct record) + (s->begun ? 0 : sizeof(struct head));
		info.dirty_bytes = bitmap_weight(s->book->owed, s->next) * sizeof(struct record);
		/* A piece that was begun counts as what the next one will be. */
		if (left)
			info.initial_bytes += s->filled - s->taken;
		else
			info.dirty_bytes += s->filled - s->taken;
		if (copy_to_user((void __user *)argument, &info, size))
			ret = -EFAULT;
	}
	mutex_unlock(&s->book->lock);
	return ret;
}

/* How long the piece is that is coming in, bytes, as far as can be told from what is there of it. */
static size_t awaited(const struct stream *s)
{
	if (!s->begun)
		return sizeof(struct head);
	if (s->filled < RECORD_HEAD || le32_to_cpu(s->piece.record.leaf) == LAST_RECORD)
		return RECORD_HEAD;
	return sizeof(struct record);
}

/* A whole piece has come. */
static void take_piece(struct stream *s)
{
	struct notebook *book = s->book;
	const struct record *record = &s->piece.record;
	const struct head head = right_head(book);
	u32 leaf = le32_to_cpu(record->leaf), crc = le32_to_cpu(record->crc);

	if (!s->begun) {
		s->begun = true;
		s->broken = memcmp(&s->piece.head, &head, sizeof(head)) != 0;
	} else if (leaf == LAST_RECORD) {
		s->last = true;
		s->broken = crc != crc_of(book->leaves, book->kind->leaves * LEAF);
	} else if (leaf >= book->kind->leaves || crc != crc_of(record->bytes, LEAF)) {
		s->broken = true;
	} else {
		memcpy(book->leaves + leaf * LEAF, record->bytes, LEAF);
	}
	s->filled = 0;
}

static ssize_t load_write(struct file *file, const char __user *from, size_t length, loff_t *pos)
{
	struct stream *s = file->private_data;
	ssize_t done = 0;

	length = min_t(size_t, length, IO_MAX);
	mutex_lock(&s->book->lock);
	if (s->ended)
		done = -ENODEV;
	else if (ordered(s->book, ORDER_CHOKE))
		done = -EIO;
	while (done >= 0 && done < length) {
		size_t part;

		if (s->broken || s->last) {
			/* Nothing may follow the last record. */
			s->broken = true;
			done = done ?: -EINVAL;
			break;
		}
		part = min_t(size_t, awaited(s) - s->filled, length - done);
		if (copy_from_user((u8 *)&s->piece + s->filled, from + done, part)) {
			done = -EFAULT;
			break;
		}
		s->filled += part;
		done += part;
		if (s->filled == awaited(s))
			take_piece(s);
	}
	mutex_unlock(&s->book->lock);
	return done;
}

static int stream_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations save_operations = {
	.owner = THIS_MODULE,
	.read = save_read,
	.unlocked_ioctl = save_ioctl,
	.release = stream_release,
};

static const struct file_operations load_operations = {
	.owner = THIS_MODULE,
	.write = load_write,
	.release = stream_release,
};

static struct file *open_stream(struct notebook *book, const struct file_operations *operations, int flags,
				bool stopped)
{
	struct stream *s = kzalloc(sizeof(*s), GFP_KERNEL);
	struct file *file;

	if (!s)
		return ERR_PTR(-ENOMEM);
	file = anon_inode_getfile("notebook", operations, s, flags);
	if (IS_ERR(file)) {
		kfree(s);
		return file;
	}
	stream_open(file->f_inode, file);
	s->book = book;
	s->file = file;
	s->stopped = stopped;
	mutex_lock(&book->lock);
	book->stream = s;
	bitmap_zero(book->owed, LEAVES_MAX);
	mutex_unlock(&book->lock);
	/* One reference is the session's, one the user's. */
	return get_file(file);
}

struct file *stream_save(struct notebook *book, bool stopped)
{
	return open_stream(book, &save_operations, O_RDONLY, stopped);
}

struct file *stream_load(struct notebook *book)
{
	return open_stream(book, &load_operations, O_WRONLY, false);
}

void stream_stop(struct notebook *book)
{
	mutex_lock(&book->lock);
	book->stream->stopped = true;
	mutex_unlock(&book->lock);
}

void stream_end(struct notebook *book)
{
	struct stream *s = book->stream;

	if (!s)
		return;
	mutex_lock(&book->lock);
	book->stream = NULL;
	s->ended = true;
	mutex_unlock(&book->lock);
	fput(s->file);
}

bool stream_complete(struct notebook *book)
{
	return book->stream->last && !book->stream->broken;
}

void stream_owe(struct notebook *book, unsigned long leaf)
{
	__set_bit(leaf, book->owed);
}
