/* A pretend V4L2 driver for tests on machines without a camera, put under a program that believes in it:
 *
 *     cc -shared -fPIC fakev4l2.c -o fakev4l2.so -ldl
 *     PRETEND_CAMERAS=DIR LD_PRELOAD=./fakev4l2.so PROGRAM
 *
 * A regular file DIR/video* of 4 MB is a camera: its ioctl calls are answered here, its mapped buffers are its pages. Structures are the kernel's own.
 * It gives MJPG (160 x 120 and 320 x 240, 50 or 25 frames/s), and YUYV and NV12 (160 x 120, 10 frames/s), and like a real driver it takes the nearest
 * to what is asked. Frame i of a stream is the content of DIR/FOURCC-WIDTH-i modulo what there is. DIR/state holds words: "busy", "silent", "broken"
 * (frames of zeros), "metadata" (no capture). A file that was unlinked is a camera that was unplugged. Not for several threads per camera.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 4, BUFFER_BYTES = 1 << 20, CAMERAS = 16 };

typedef struct {
    int fd, streaming, queued[BUFFERS], n_queued;
    unsigned long frame;
    struct v4l2_pix_format format;
    unsigned rate_hz;
    long long due_ns;
} camera;

static camera cameras[CAMERAS];

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *folder(void)
{
    return getenv("PRETEND_CAMERAS");
}

static int says(const char *word)
{
    char path[512], text[256] = "";
    snprintf(path, sizeof path, "%s/state", folder());
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = 0;
    fclose(file);
    return strstr(text, word) != NULL;
}

static int is_camera(int fd)
{
    char link[64], path[512];
    if (folder() == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    size_t prefix = strlen(folder());
    return strncmp(path, folder(), prefix) == 0 && strncmp(path + prefix, "/video", 6) == 0;
}

static void nearest(struct v4l2_pix_format *format)
{
    if (format->pixelformat != V4L2_PIX_FMT_MJPEG && format->pixelformat != V4L2_PIX_FMT_NV12)
        format->pixelformat = V4L2_PIX_FMT_YUYV;
    int large = format->pixelformat == V4L2_PIX_FMT_MJPEG && format->width >= 240;
    format->width = large ? 320 : 160;
    format->height = large ? 240 : 120;
    format->field = V4L2_FIELD_NONE;
    format->bytesperline = format->pixelformat == V4L2_PIX_FMT_YUYV ? format->width * 2 : format->pixelformat == V4L2_PIX_FMT_NV12 ? format->width : 0;
    format->sizeimage = BUFFER_BYTES;
}

static void nearest_rate(camera *c, unsigned asked_hz)
{
    c->rate_hz = c->format.pixelformat == V4L2_PIX_FMT_MJPEG ? (asked_hz > 0 && asked_hz < 38 ? 25 : 50) : 10;
}

static camera *find(int fd)
{
    camera *empty = NULL;
    for (int i = 0; i < CAMERAS; i++) {
        if (cameras[i].fd == fd + 1)
            return &cameras[i];
        if (cameras[i].fd == 0 && empty == NULL)
            empty = &cameras[i];
    }
    if (empty == NULL)
        abort();
    memset(empty, 0, sizeof *empty);
    empty->fd = fd + 1;
    empty->format.width = 160;
    nearest(&empty->format);
    nearest_rate(empty, 0);
    return empty;
}

static int unplugged(int fd)
{
    struct stat about;
    return fstat(fd, &about) != 0 || about.st_nlink == 0;
}

static size_t picture(const camera *c, unsigned char *bytes)
{
    if (says("broken")) {
        memset(bytes, 0, 100);
        return 100;
    }
    for (unsigned long i = c->frame;; i = 0) {
        char path[600];
        snprintf(path, sizeof path, "%s/%.4s-%u-%lu", folder(), (const char *)&c->format.pixelformat, c->format.width, i);
        FILE *file = fopen(path, "rb");
        if (file != NULL) {
            size_t n = fread(bytes, 1, BUFFER_BYTES, file);
            fclose(file);
            return n;
        }
        if (i == 0)
            abort();
    }
}

static int no(int code)
{
    errno = code;
    return -1;
}

static int list_formats(struct v4l2_fmtdesc *entry)
{
    static const unsigned formats[] = {V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12};
    if (entry->index >= 3)
        return no(EINVAL);
    entry->pixelformat = formats[entry->index];
    return 0;
}

static int list_sizes(struct v4l2_frmsizeenum *entry)
{
    if (entry->index >= (entry->pixel_format == V4L2_PIX_FMT_MJPEG ? 2 : 1))
        return no(EINVAL);
    entry->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    entry->discrete.width = entry->index ? 320 : 160;
    entry->discrete.height = entry->index ? 240 : 120;
    return 0;
}

static int list_intervals(struct v4l2_frmivalenum *entry)
{
    int compressed = entry->pixel_format == V4L2_PIX_FMT_MJPEG;
    if (entry->index >= (compressed ? 2 : 1))
        return no(EINVAL);
    entry->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    entry->discrete.numerator = 1;
    entry->discrete.denominator = !compressed ? 10 : entry->index ? 25 : 50;
    return 0;
}

static int dequeue(camera *c, int fd, struct v4l2_buffer *buffer)
{
    static unsigned char bytes[BUFFER_BYTES];
    if (!c->streaming)
        return no(EINVAL);
    if (c->n_queued == 0 || says("silent") || now_ns() < c->due_ns)
        return no(EAGAIN);
    int index = c->queued[0];
    memmove(c->queued, c->queued + 1, (size_t)--c->n_queued * sizeof c->queued[0]);
    size_t n = picture(c, bytes);
    if (pwrite(fd, bytes, n, (off_t)index * BUFFER_BYTES) != (ssize_t)n)
        return no(EIO);
    buffer->index = (unsigned)index;
    buffer->bytesused = (unsigned)n;
    buffer->length = BUFFER_BYTES;
    buffer->m.offset = (unsigned)index * BUFFER_BYTES;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp.tv_sec = c->due_ns / 1000000000;
    buffer->timestamp.tv_usec = c->due_ns % 1000000000 / 1000;
    buffer->sequence = (unsigned)c->frame++;
    long long late_ns = now_ns() - c->due_ns;
    c->due_ns += 1000000000LL / c->rate_hz * (1 + (late_ns > 1000000000LL ? late_ns / (1000000000LL / c->rate_hz) : 0));
    return 0;
}

static int answer(int fd, unsigned long request, void *data)
{
    camera *c = find(fd);
    if (unplugged(fd))
        return no(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *about = data;
        memset(about, 0, sizeof *about);
        strcpy((char *)about->driver, "fakev4l2");
        strcpy((char *)about->card, "Pretend Camera");
        about->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
        about->device_caps = (says("metadata") ? V4L2_CAP_META_CAPTURE : V4L2_CAP_VIDEO_CAPTURE) | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_ENUM_FMT:
        return list_formats(data);
    case VIDIOC_ENUM_FRAMESIZES:
        return list_sizes(data);
    case VIDIOC_ENUM_FRAMEINTERVALS:
        return list_intervals(data);
    case VIDIOC_G_FMT:
        ((struct v4l2_format *)data)->fmt.pix = c->format;
        return 0;
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT: {
        struct v4l2_format *wanted = data;
        nearest(&wanted->fmt.pix);
        if (request == VIDIOC_S_FMT) {
            c->format = wanted->fmt.pix;
            nearest_rate(c, 0);
        }
        return 0;
    }
    case VIDIOC_S_PARM: {
        struct v4l2_fract *period = &((struct v4l2_streamparm *)data)->parm.capture.timeperframe;
        nearest_rate(c, period->numerator ? period->denominator / period->numerator : 0);
    } /* fall through */
    case VIDIOC_G_PARM: {
        struct v4l2_captureparm *capture = &((struct v4l2_streamparm *)data)->parm.capture;
        capture->capability = V4L2_CAP_TIMEPERFRAME;
        capture->timeperframe.numerator = 1;
        capture->timeperframe.denominator = c->rate_hz;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = data;
        if (says("busy"))
            return no(EBUSY);
        wanted->count = wanted->count > BUFFERS ? BUFFERS : wanted->count;
        c->n_queued = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = data;
        buffer->length = BUFFER_BYTES;
        buffer->m.offset = buffer->index * BUFFER_BYTES;
        return 0;
    }
    case VIDIOC_QBUF:
        c->queued[c->n_queued++ % BUFFERS] = (int)((struct v4l2_buffer *)data)->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(c, fd, data);
    case VIDIOC_STREAMON:
        c->streaming = 1;
        c->due_ns = now_ns();
        return 0;
    case VIDIOC_STREAMOFF:
        c->streaming = c->n_queued = 0;
        return 0;
    default:
        return no(ENOTTY);
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    va_list list;
    va_start(list, request);
    void *data = va_arg(list, void *);
    va_end(list);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
    request = (unsigned)request; /* Python and OpenCV may widen it with its sign */
    if (_IOC_TYPE(request) != 'V' || !is_camera(fd))
        return real(fd, request, data);
    return answer(fd, request, data);
}

int close(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "close");
    for (int i = 0; i < CAMERAS; i++)
        if (cameras[i].fd == fd + 1)
            cameras[i].fd = 0;
    return real(fd);
}

/* A regular file is always ready; a camera is when its frame is due. */
int select(int n, fd_set *reads, fd_set *writes, fd_set *errors, struct timeval *timeout)
{
    static int (*real)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "select");
    if (reads == NULL || n < 1 || !FD_ISSET(n - 1, reads) || !is_camera(n - 1))
        return real(n, reads, writes, errors, timeout);
    camera *c = find(n - 1);
    long long end_ns = timeout == NULL ? -1 : now_ns() + timeout->tv_sec * 1000000000LL + timeout->tv_usec * 1000LL;
    while (!unplugged(n - 1) && (says("silent") || now_ns() < c->due_ns)) {
        if (end_ns >= 0 && now_ns() >= end_ns) {
            FD_ZERO(reads);
            return 0;
        }
        usleep(2000);
    }
    return 1;
}
