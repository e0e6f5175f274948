// SPDX-License-Identifier: GPL-2.0-only
/* The device: its regions, its states, its record of DMA, and how it is made through sysfs as any mediated device is. */
#include <linux/bitmap.h>
#include <linux/device.h>
#include <linux/iova_bitmap.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>
#include <linux/vmalloc.h>
#include "notebook.h"

static struct notebook *book_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct notebook, vdev);
}

/* One arc of vfio_mig_get_next_state(); none but these exist for a device without P2P. */
static struct file *walk(struct notebook *book, enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state from = book->state;

	if (to == VFIO_DEVICE_STATE_PRE_COPY)
		return stream_save(book, false);
	if (to == VFIO_DEVICE_STATE_RESUMING)
		return stream_load(book);
	if (to == VFIO_DEVICE_STATE_STOP_COPY && from == VFIO_DEVICE_STATE_STOP)
		return stream_save(book, true);
	if (to == VFIO_DEVICE_STATE_STOP_COPY) {
		stream_stop(book);
		return NULL;
	}
	if (from == VFIO_DEVICE_STATE_RESUMING && !stream_complete(book))
		return ERR_PTR(-EINVAL);
	stream_end(book);
	return NULL;
}

/* What the next state change was ordered to do; 0, or the error that it ends with. */
static int obey(struct notebook *book)
{
	bool refuse, fail;

	mutex_lock(&book->lock);
	refuse = ordered(book, ORDER_REFUSE);
	fail = ordered(book, ORDER_FAIL);
	mutex_unlock(&book->lock);
	if (fail) {
		stream_end(book);
		book->state = VFIO_DEVICE_STATE_ERROR;
	}
	return refuse ? -EBUSY : fail ? -EIO : 0;
}

static struct file *set_state(struct vfio_device *vdev, enum vfio_device_mig_state to)
{
	struct notebook *book = book_of(vdev);
	enum vfio_device_mig_state next;
	struct file *file = NULL;
	int ret;

	mutex_lock(&book->state_lock);
	while (book->state != to) {
		ret = vfio_mig_get_next_state(vdev, book->state, to, &next);
		if (!ret)
			ret = obey(book);
		file = ret ? ERR_PTR(ret) : walk(book, next);
		if (IS_ERR(file))
			break;
		book->state = next;
	}
	mutex_unlock(&book->state_lock);
	return file;
}

static int get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct notebook *book = book_of(vdev);

	mutex_lock(&book->state_lock);
	*state = book->state;
	mutex_unlock(&book->state_lock);
	return 0;
}

static int get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	*bytes = stream_bytes(book_of(vdev));
	return 0;
}

static const struct vfio_migration_ops migration_operations = {
	.migration_set_state = set_state,
	.migration_get_state = get_state,
	.migration_get_data_size = get_data_size,
};

static int log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 count, u64 *page_size)
{
	struct notebook *book = book_of(vdev);
	int ret = 0;

	mutex_lock(&book->lock);
	if (book->logging || *page_size != LEAF) {
		ret = -EINVAL;
	} else {
		book->logging = true;
		bitmap_zero(book->dma, IOVA_LEAVES);
	}
	mutex_unlock(&book->lock);
	return ret;
}

static int log_stop(struct vfio_device *vdev)
{
	struct notebook *book = book_of(vdev);

	mutex_lock(&book->lock);
	book->logging = false;
	mutex_unlock(&book->lock);
	return 0;
}

static int log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
			      struct iova_bitmap *dirty)
{
	unsigned long leaf = iova / LEAF, end = min_t(unsigned long, (iova + length) / LEAF, IOVA_LEAVES);
	struct notebook *book = book_of(vdev);
	int ret = 0;

	mutex_lock(&book->lock);
	if (book->kind->mute)
		ret = -EOPNOTSUPP;
	else if (!book->logging)
		ret = -EINVAL;
	else
		for_each_set_bit_from(leaf, book->dma, end) {
			__clear_bit(leaf, book->dma);
			iova_bitmap_set(dirty, leaf * LEAF, LEAF);
		}
	mutex_unlock(&book->lock);
	return ret;
}

static const struct vfio_log_ops log_operations = {
	.log_start = log_start,
	.log_stop = log_stop,
	.log_read_and_clear = log_read_and_clear,
};

static size_t region_bytes(const struct notebook *book, u32 region)
{
	switch (region) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return book->kind->leaves * LEAF;
	case VFIO_PCI_BAR2_REGION_INDEX:
		return sizeof(u32);
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return sizeof_field(struct notebook, config);
	default:
		return 0;
	}
}

static void wrote(struct notebook *book, u32 region, size_t at, size_t length)
{
	size_t leaf;

	if (region == VFIO_PCI_BAR0_REGION_INDEX) {
		for (leaf = at / LEAF; leaf <= (at + length - 1) / LEAF; leaf++)
			stream_owe(book, leaf);
	} else if (region == VFIO_PCI_BAR2_REGION_INDEX && (book->order & ORDER_VERB) == ORDER_DIRTY) {
		leaf = book->order / (ORDER_VERB + 1);
		if (leaf < IOVA_LEAVES)
			__set_bit(leaf, book->dma);
		book->order = 0;
	}
}

static ssize_t access_region(struct notebook *book, char __user *to, const char __user *from, size_t length,
			     loff_t *pos)
{
	u32 region = VFIO_PCI_OFFSET_TO_INDEX(*pos);
	size_t at = *pos & VFIO_PCI_OFFSET_MASK, size = region_bytes(book, region);
	bool failed;
	u8 *bytes;

	if (at >= size)
		return -EINVAL;
	length = min(length, size - at);
	mutex_lock(&book->lock);
	bytes = region == VFIO_PCI_BAR0_REGION_INDEX ? book->leaves :
		region == VFIO_PCI_BAR2_REGION_INDEX ? (u8 *)&book->order : book->config;
	failed = to ? copy_to_user(to, bytes + at, length) : copy_from_user(bytes + at, from, length);
	if (!failed && from && length)
		wrote(book, region, at, length);
	mutex_unlock(&book->lock);
	if (failed)
		return -EFAULT;
	*pos += length;
	return length;
}

static ssize_t device_read(struct vfio_device *vdev, char __user *to, size_t length, loff_t *pos)
{
	return access_region(book_of(vdev), to, NULL, length, pos);
}

static ssize_t device_write(struct vfio_device *vdev, const char __user *from, size_t length, loff_t *pos)
{
	return access_region(book_of(vdev), NULL, from, length, pos);
}

static void go_home(struct notebook *book)
{
	mutex_lock(&book->state_lock);
	stream_end(book);
	book->state = VFIO_DEVICE_STATE_RUNNING;
	mutex_lock(&book->lock);
	book->order = 0;
	book->logging = false;
	mutex_unlock(&book->lock);
	mutex_unlock(&book->state_lock);
}

static long device_ioctl(struct vfio_device *vdev, unsigned int request, unsigned long argument)
{
	void __user *user = (void __user *)argument;

	if (request == VFIO_DEVICE_GET_INFO) {
		const size_t size = offsetofend(struct vfio_device_info, num_irqs);
		struct vfio_device_info info;

		if (copy_from_user(&info, user, size))
			return -EFAULT;
		if (info.argsz < size)
			return -EINVAL;
		info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		info.num_regions = VFIO_PCI_NUM_REGIONS;
		info.num_irqs = 0;
		return copy_to_user(user, &info, size) ? -EFAULT : 0;
	}
	if (request == VFIO_DEVICE_GET_REGION_INFO) {
		const size_t size = offsetofend(struct vfio_region_info, offset);
		struct vfio_region_info info;

		if (copy_from_user(&info, user, size))
			return -EFAULT;
		if (info.argsz < size || info.index >= VFIO_PCI_NUM_REGIONS)
			return -EINVAL;
		info.size = region_bytes(book_of(vdev), info.index);
		info.offset = VFIO_PCI_INDEX_TO_OFFSET(info.index);
		info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
		return copy_to_user(user, &info, size) ? -EFAULT : 0;
	}
	if (request != VFIO_DEVICE_RESET)
		return -ENOTTY;
	go_home(book_of(vdev));
	return 0;
}

static int device_init(struct vfio_device *vdev)
{
	struct notebook *book = book_of(vdev);

	book->kind = container_of(to_mdev_device(vdev->dev)->type, struct kind, type);
	book->leaves = vzalloc(book->kind->leaves * LEAF);
	if (!book->leaves)
		return -ENOMEM;
	mutex_init(&book->state_lock);
	mutex_init(&book->lock);
	book->state = VFIO_DEVICE_STATE_RUNNING;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY;
	vdev->mig_ops = &migration_operations;
	vdev->log_ops = &log_operations;
	return 0;
}

static void device_release(struct vfio_device *vdev)
{
	vfree(book_of(vdev)->leaves);
}

static void device_close(struct vfio_device *vdev)
{
	go_home(book_of(vdev));
}

static const struct vfio_device_ops device_operations = {
	.name = "godwit-notebook",
	.init = device_init,
	.release = device_release,
	.close_device = device_close,
	.read = device_read,
	.write = device_write,
	.ioctl = device_ioctl,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};

static int probe(struct mdev_device *mdev)
{
	struct notebook *book = vfio_alloc_device(notebook, vdev, &mdev->dev, &device_operations);
	int ret;

	if (IS_ERR(book))
		return PTR_ERR(book);
	ret = vfio_register_emulated_iommu_dev(&book->vdev);
	if (ret)
		vfio_put_device(&book->vdev);
	else
		dev_set_drvdata(&mdev->dev, book);
	return ret;
}

static void remove(struct mdev_device *mdev)
{
	struct notebook *book = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&book->vdev);
	vfio_put_device(&book->vdev);
}

static struct mdev_driver driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = 16,
	.driver = { .name = "notebook", .owner = THIS_MODULE, .mod_name = KBUILD_MODNAME },
	.probe = probe,
	.remove = remove,
};

static struct kind small = { { "small", "1 MiB of state" }, .leaves = 256 };
static struct kind large = { { "large", "8 MiB of state" }, .leaves = LEAVES_MAX };
static struct kind mute = { { "mute", "1 MiB of state, and no reports of DMA" }, .leaves = 256, .mute = true };
static struct mdev_type *types[] = { &small.type, &large.type, &mute.type };
static struct mdev_parent parent;

/* Part of the kernel that is built for the tests, so there is no way out. */
static int __init notebook_init(void)
{
	struct class *class;
	struct device *device;
	int ret = mdev_register_driver(&driver);

	if (ret)
		return ret;
	/* The class is the first word of the types' names in sysfs. */
	class = class_create("notebook");
	if (IS_ERR(class))
		return PTR_ERR(class);
	device = device_create(class, NULL, 0, NULL, "notebook");
	if (IS_ERR(device))
		return PTR_ERR(device);
	return mdev_register_parent(&parent, device, &driver, types, ARRAY_SIZE(types));
}
late_initcall(notebook_init);
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(IOMMUFD);
MODULE_DESCRIPTION("A mediated device with pages of migratable state");
