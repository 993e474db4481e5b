/*
 * A camera for programs that read Video4Linux devices, made of a library to preload.
 *
 *   cc -shared -fPIC -o libv4lshim.so v4l.c -ldl
 *   LD_PRELOAD=./libv4lshim.so FATHOM_SHIM_FORMATS=YUYV,MJPG program
 *
 * It takes over opening, ioctl, poll and close of one path (the node need not exist) and plays a
 * driver with memory-mapped streaming: images come at a steady rate, each into the first buffer
 * that the program has queued, and are dropped while none is. Pixel (x, y) of image n has the
 * luminance x + y + 3n, U = n and V = x + n (modulo 256; pairs of pixels share those of the left
 * one); RGB images have red = x, green = y, blue = n.
 *
 * Settings, all from the environment:
 *   FATHOM_SHIM_NODE          path of the device; default /dev/video0
 *   FATHOM_SHIM_FORMATS       formats that it offers, as YUYV,NV12,RGB3,MJPG; default YUYV
 *   FATHOM_SHIM_SIZE          the one size that it has, as 320x240; default: any
 *   FATHOM_SHIM_PAD           bytes after each row; default 0
 *   FATHOM_SHIM_RATE          images per second; default 100
 *   FATHOM_SHIM_STAMP         soe, eof (default) or unknown: flags of the time stamp; none: no time stamp
 *   FATHOM_SHIM_JPEG          the picture that MJPG images are
 *   FATHOM_SHIM_STALL_AFTER   images of a device before it falls silent, until it is restarted
 *   FATHOM_SHIM_UNPLUG_AFTER  images of a device before it is gone
 *   FATHOM_SHIM_REPLUG_MS     milliseconds until it is back; default: never
 *   FATHOM_SHIM_SHORT_AFTER   images before all come with half of their bytes
 *   FATHOM_SHIM_ERROR_EVERY   every n-th image is flagged as damaged
 *   FATHOM_SHIM_EMPTY_AFTER   images before all come without bytes; their buffers are left as they were
 *   FATHOM_SHIM_EMPTY_EVERY   every n-th image comes without bytes
 *   FATHOM_SHIM_FREEZE_AFTER  images before all come with one time stamp
 *   FATHOM_SHIM_COUNT         0: all images have the number 0
 *   FATHOM_SHIM_TAIL          bytes of zeros after each image; default 0
 *   FATHOM_SHIM_BUSY          open, format or buffers: where another program gets in the way
 *   FATHOM_SHIM_STOP_FAILS    1: stopping the stream fails with EIO
 *   FATHOM_SHIM_METADATA      1: it is not a capture device
 *   FATHOM_SHIM_ODD           1: it tells a colour space that nobody knows
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BUFFERS = 8, MAX_FORMATS = 8 };

enum state { DEQUEUED, QUEUED, DONE };

struct buffer {
    enum state state;
    uint8_t *data;
    uint64_t order; /* of its queueing, then of its filling */
    uint32_t sequence;
    uint32_t used;
    uint32_t flags;
    uint64_t stamp_us;
};

static struct {
    int fd; /* 0: not open */
    int streaming;
    int stalled;
    uint64_t unplugged_us; /* 0: plugged in */
    struct v4l2_pix_format pix;
    struct buffer buffers[MAX_BUFFERS];
    uint32_t count;
    uint32_t length; /* of a buffer, whole pages */
    uint64_t orders;
    uint64_t next_us;
    uint64_t stamp_us; /* of the latest image */
    uint32_t sequence; /* of the next image of this stream */
    uint32_t images;   /* of the device, over all streams */
} cam;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static const char *text(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static long number(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static int busy_at(const char *stage)
{
    return !strcmp(text("FATHOM_SHIM_BUSY", ""), stage);
}

static uint64_t period_us(void)
{
    return 1000000 / (uint64_t)number("FATHOM_SHIM_RATE", 100);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Codes of the formats on offer; returns how many. */
static uint32_t formats(uint32_t codes[MAX_FORMATS])
{
    const char *rest = text("FATHOM_SHIM_FORMATS", "YUYV");
    uint32_t count = 0;
    while (strlen(rest) >= 4 && count < MAX_FORMATS) {
        codes[count++] = v4l2_fourcc(rest[0], rest[1], rest[2], rest[3]);
        rest += rest[4] == ',' ? 5 : 4;
    }
    return count;
}

static void set_geometry(struct v4l2_pix_format *pix)
{
    uint32_t codes[MAX_FORMATS], count = formats(codes), known = 0;
    for (uint32_t i = 0; i < count; i++)
        known |= codes[i] == pix->pixelformat;
    if (!known)
        pix->pixelformat = codes[0];
    sscanf(text("FATHOM_SHIM_SIZE", ""), "%ux%u", &pix->width, &pix->height);
    uint32_t row = pix->width;
    uint32_t rows = pix->height;
    if (pix->pixelformat == V4L2_PIX_FMT_YUYV)
        row = (pix->width + 1) / 2 * 4;
    if (pix->pixelformat == V4L2_PIX_FMT_RGB24)
        row = pix->width * 3;
    if (pix->pixelformat == V4L2_PIX_FMT_NV12)
        rows += (rows + 1) / 2;
    /* A stride that the program asks for is honoured, as real drivers do. */
    uint32_t stride = row + (uint32_t)number("FATHOM_SHIM_PAD", 0);
    pix->bytesperline = pix->bytesperline > stride ? pix->bytesperline : stride;
    pix->sizeimage = pix->bytesperline * rows;
    if (pix->pixelformat == V4L2_PIX_FMT_MJPEG) {
        pix->bytesperline = 0;
        pix->sizeimage = pix->width * pix->height * 2 + 65536;
    }
    pix->field = V4L2_FIELD_NONE;
    pix->colorspace = number("FATHOM_SHIM_ODD", 0) ? 99 : V4L2_COLORSPACE_SRGB;
}

static uint32_t read_picture(uint8_t *data, uint32_t room)
{
    FILE *file = fopen(text("FATHOM_SHIM_JPEG", ""), "rb");
    if (!file)
        return 0;
    size_t used = fread(data, 1, room, file);
    fclose(file);
    return (uint32_t)used;
}

/* Draws image n; returns its bytes. */
static uint32_t draw(uint8_t *data, uint32_t n)
{
    const struct v4l2_pix_format *pix = &cam.pix;
    if (pix->pixelformat == V4L2_PIX_FMT_MJPEG)
        return read_picture(data, pix->sizeimage);
    for (uint32_t y = 0; y < pix->height; y++) {
        uint8_t *row = data + y * pix->bytesperline;
        memset(row, 0xee, pix->bytesperline);
        for (uint32_t x = 0; x < pix->width; x++) {
            uint8_t luminance = (uint8_t)(x + y + 3 * n);
            if (pix->pixelformat == V4L2_PIX_FMT_YUYV) {
                row[2 * x] = luminance;
                row[2 * x + 1] = (uint8_t)(x % 2 ? x - 1 + n : n);
            } else if (pix->pixelformat == V4L2_PIX_FMT_RGB24) {
                row[3 * x] = (uint8_t)x;
                row[3 * x + 1] = (uint8_t)y;
                row[3 * x + 2] = (uint8_t)n;
            } else {
                row[x] = luminance;
            }
        }
    }
    if (pix->pixelformat == V4L2_PIX_FMT_NV12) {
        for (uint32_t y = 0; y < (pix->height + 1) / 2; y++) {
            uint8_t *row = data + (pix->height + y) * pix->bytesperline;
            memset(row, 0xee, pix->bytesperline);
            for (uint32_t x = 0; x + 1 < pix->width + 1; x += 2) {
                row[x] = (uint8_t)n;
                row[x + 1] = (uint8_t)(x + n);
            }
        }
    }
    return pix->sizeimage;
}

/* The buffer that has been in this state for longest. */
static struct buffer *oldest(enum state state)
{
    struct buffer *found = NULL;
    for (uint32_t i = 0; i < cam.count; i++) {
        struct buffer *b = &cam.buffers[i];
        if (b->state == state && (!found || b->order < found->order))
            found = b;
    }
    return found;
}

static int reached(const char *name)
{
    long after = number(name, -1);
    return after >= 0 && (long)cam.images >= after;
}

static int unplugged(void)
{
    if (!cam.unplugged_us && reached("FATHOM_SHIM_UNPLUG_AFTER"))
        cam.unplugged_us = now_us();
    return cam.unplugged_us != 0;
}

/* Whether the cable is in, seen from a program that opens the device. */
static int present(void)
{
    if (!unplugged())
        return 1;
    long after_ms = number("FATHOM_SHIM_REPLUG_MS", -1);
    return after_ms >= 0 && now_us() >= cam.unplugged_us + (uint64_t)after_ms * 1000;
}

/* Brings the images up to the present time. */
static void advance(void)
{
    uint64_t now = now_us();
    while (cam.streaming && cam.next_us <= now) {
        if (reached("FATHOM_SHIM_STALL_AFTER")) {
            cam.stalled = 1;
            unsetenv("FATHOM_SHIM_STALL_AFTER"); /* once is enough */
        }
        if (cam.stalled || unplugged())
            return;
        struct buffer *b = oldest(QUEUED);
        if (b) {
            const char *stamp = text("FATHOM_SHIM_STAMP", "eof");
            long empty = number("FATHOM_SHIM_EMPTY_EVERY", 0);
            if (reached("FATHOM_SHIM_EMPTY_AFTER") || (empty && (cam.sequence + 1) % empty == 0))
                b->used = 0;
            else
                b->used = draw(b->data, cam.sequence);
            uint32_t tail = (uint32_t)number("FATHOM_SHIM_TAIL", 0);
            memset(b->data + b->used, 0, tail);
            b->used += tail;
            if (reached("FATHOM_SHIM_SHORT_AFTER"))
                b->used /= 2;
            b->flags = V4L2_BUF_FLAG_MAPPED;
            if (strcmp(stamp, "unknown") && strcmp(stamp, "none"))
                b->flags |= V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
            if (!strcmp(stamp, "soe"))
                b->flags |= V4L2_BUF_FLAG_TSTAMP_SRC_SOE;
            long damaged = number("FATHOM_SHIM_ERROR_EVERY", 0);
            if (damaged && (cam.sequence + 1) % damaged == 0)
                b->flags |= V4L2_BUF_FLAG_ERROR;
            b->sequence = number("FATHOM_SHIM_COUNT", 1) ? cam.sequence : 0;
            if (!reached("FATHOM_SHIM_FREEZE_AFTER"))
                cam.stamp_us = cam.next_us;
            b->stamp_us = strcmp(stamp, "none") ? cam.stamp_us : 0;
            b->state = DONE;
            b->order = ++cam.orders;
        }
        cam.sequence++;
        cam.images++;
        cam.next_us += period_us();
    }
}

static void release(void)
{
    for (uint32_t i = 0; i < cam.count; i++)
        munmap(cam.buffers[i].data, cam.length);
    memset(cam.buffers, 0, sizeof cam.buffers);
    cam.count = 0;
}

static int request(struct v4l2_requestbuffers *r)
{
    if (busy_at("buffers") || (cam.streaming && r->count))
        return fail(EBUSY);
    release();
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    r->count = r->count > MAX_BUFFERS ? MAX_BUFFERS : r->count;
    cam.length = (cam.pix.sizeimage + page - 1) / page * page;
    if (ftruncate(cam.fd, (off_t)cam.length * r->count))
        return -1;
    for (; cam.count < r->count; cam.count++) {
        off_t offset = (off_t)cam.length * cam.count;
        void *data = mmap(NULL, cam.length, PROT_READ | PROT_WRITE, MAP_SHARED, cam.fd, offset);
        if (data == MAP_FAILED)
            return -1;
        cam.buffers[cam.count].data = data;
    }
    return 0;
}

static int dequeue(struct v4l2_buffer *v)
{
    if (!cam.streaming)
        return fail(EINVAL);
    advance();
    struct buffer *b = oldest(DONE);
    if (!b)
        return fail(EAGAIN); /* the v4l crate opens without blocking */
    b->state = DEQUEUED;
    v->index = (uint32_t)(b - cam.buffers);
    v->bytesused = b->used;
    v->length = cam.pix.sizeimage;
    v->sequence = b->sequence;
    v->flags = b->flags;
    v->field = V4L2_FIELD_NONE;
    v->timestamp.tv_sec = (time_t)(b->stamp_us / 1000000);
    v->timestamp.tv_usec = (suseconds_t)(b->stamp_us % 1000000);
    return 0;
}

static int queue(const struct v4l2_buffer *v)
{
    if (v->index >= cam.count || cam.buffers[v->index].state != DEQUEUED)
        return fail(EINVAL);
    /* What the images of the time before met was without this buffer. */
    advance();
    cam.buffers[v->index].state = QUEUED;
    cam.buffers[v->index].order = ++cam.orders;
    return 0;
}

static int start(void)
{
    cam.streaming = 1;
    cam.stalled = 0;
    cam.sequence = 0;
    cam.next_us = now_us() + period_us();
    return 0;
}

static int stop(void)
{
    if (number("FATHOM_SHIM_STOP_FAILS", 0))
        return fail(EIO);
    cam.streaming = 0;
    for (uint32_t i = 0; i < cam.count; i++)
        cam.buffers[i].state = DEQUEUED;
    return 0;
}

static int describe(struct v4l2_capability *c)
{
    memset(c, 0, sizeof *c);
    strcpy((char *)c->driver, "fathom-shim");
    strcpy((char *)c->card, "Shim camera");
    strcpy((char *)c->bus_info, "shim:0");
    c->device_caps = V4L2_CAP_STREAMING;
    c->device_caps |=
        number("FATHOM_SHIM_METADATA", 0) ? V4L2_CAP_META_CAPTURE : V4L2_CAP_VIDEO_CAPTURE;
    c->capabilities = c->device_caps | V4L2_CAP_DEVICE_CAPS;
    return 0;
}

static int list_format(struct v4l2_fmtdesc *d)
{
    uint32_t codes[MAX_FORMATS];
    if (d->index >= formats(codes))
        return fail(EINVAL);
    d->pixelformat = codes[d->index];
    d->flags = 0;
    memset(d->description, 0, sizeof d->description);
    memcpy(d->description, &codes[d->index], 4);
    return 0;
}

static int list_size(struct v4l2_frmsizeenum *s)
{
    if (s->index)
        return fail(EINVAL);
    s->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    if (sscanf(text("FATHOM_SHIM_SIZE", ""), "%ux%u", &s->discrete.width, &s->discrete.height) == 2)
        return 0;
    s->type = V4L2_FRMSIZE_TYPE_STEPWISE;
    s->stepwise.min_width = s->stepwise.min_height = s->stepwise.step_width = 2;
    s->stepwise.step_height = 2;
    s->stepwise.max_width = 1920;
    s->stepwise.max_height = 1080;
    return 0;
}

static int control(unsigned long command, void *arg)
{
    if (unplugged())
        return fail(ENODEV);
    switch ((uint32_t)command) {
    case VIDIOC_QUERYCAP:
        return describe(arg);
    case VIDIOC_ENUM_FMT:
        return list_format(arg);
    case VIDIOC_ENUM_FRAMESIZES:
        return list_size(arg);
    case VIDIOC_S_FMT:
        if (cam.streaming || busy_at("format"))
            return fail(EBUSY);
        cam.pix = ((struct v4l2_format *)arg)->fmt.pix;
        set_geometry(&cam.pix);
        /* fall through */
    case VIDIOC_G_FMT:
        ((struct v4l2_format *)arg)->fmt.pix = cam.pix;
        return 0;
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM: {
        struct v4l2_captureparm *parm = &((struct v4l2_streamparm *)arg)->parm.capture;
        parm->timeperframe.numerator = 1;
        parm->timeperframe.denominator = (uint32_t)number("FATHOM_SHIM_RATE", 100);
        return 0;
    }
    case VIDIOC_REQBUFS:
        return request(arg);
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *v = arg;
        if (v->index >= cam.count)
            return fail(EINVAL);
        v->length = cam.pix.sizeimage;
        v->m.offset = v->index * cam.length;
        return 0;
    }
    case VIDIOC_QBUF:
        return queue(arg);
    case VIDIOC_DQBUF:
        return dequeue(arg);
    case VIDIOC_STREAMON:
        return start();
    case VIDIOC_STREAMOFF:
        return stop();
    default:
        return fail(ENOTTY);
    }
}

static int open_path(const char *path, int flags, mode_t mode)
{
    if (!path || strcmp(path, text("FATHOM_SHIM_NODE", "/dev/video0")))
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (!present())
        return fail(ENOENT);
    if (busy_at("open") || cam.fd)
        return fail(EBUSY);
    uint32_t images = cam.unplugged_us ? 0 : cam.images;
    if (cam.unplugged_us)
        unsetenv("FATHOM_SHIM_UNPLUG_AFTER"); /* once is enough */
    memset(&cam, 0, sizeof cam);
    cam.images = images;
    cam.fd = memfd_create("v4lshim", MFD_CLOEXEC);
    cam.pix.pixelformat = V4L2_PIX_FMT_YUYV;
    cam.pix.width = 640;
    cam.pix.height = 480;
    set_geometry(&cam.pix);
    return cam.fd;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return open_path(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return open_path(path, flags, mode);
}

int close(int fd)
{
    if (cam.fd && fd == cam.fd) {
        release();
        cam.fd = 0;
        cam.streaming = 0;
    }
    return (int)syscall(SYS_close, fd);
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    static int (*real)(struct pollfd *, nfds_t, int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "poll");
    if (!cam.fd || count != 1 || fds->fd != cam.fd)
        return real(fds, count, timeout_ms);
    uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : now_us() + (uint64_t)timeout_ms * 1000;
    for (;;) {
        advance();
        /* As the kernel does for a device that is gone or has no buffer to wait for. */
        if (unplugged() || !cam.streaming || (!oldest(DONE) && !oldest(QUEUED))) {
            fds->revents = POLLERR;
            return 1;
        }
        if (oldest(DONE)) {
            fds->revents = POLLIN;
            return 1;
        }
        uint64_t now = now_us();
        if (now >= deadline)
            return 0;
        uint64_t until = cam.stalled || cam.next_us > deadline ? deadline : cam.next_us;
        if (until > now)
            usleep((useconds_t)(until - now > 100000 ? 100000 : until - now));
    }
}

/* The v4l crate's ioctl goes through here. */
long syscall(long call, ...)
{
    va_list rest;
    va_start(rest, call);
    long v[6];
    for (int i = 0; i < 6; i++)
        v[i] = va_arg(rest, long);
    va_end(rest);
    if (call == SYS_ioctl && cam.fd && v[0] == cam.fd)
        return control((unsigned long)v[1], (void *)v[2]);
    static long (*real)(long, ...);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    return real(call, v[0], v[1], v[2], v[3], v[4], v[5]);
}
