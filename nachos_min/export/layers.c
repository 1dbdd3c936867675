/* Layers in float, channels last: maps [height][width][channels], weights as `folded` has them. */

typedef struct {
    int height, width, channels; /* of the map that is read */
    int rows, columns, outputs;  /* of the map that is written */
    int kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, depthwise;
} window;

/* y = activation(x); a letter is the activation: r relu, s h-swish, g h-sigmoid, - none. */
static void activate(const float *x, float *y, int count, char kind)
{
    for (int i = 0; i < count; i++) {
        float gate = x[i] <= -3 ? 0 : x[i] >= 3 ? 1 : (x[i] + 3) * (1.0f / 6);
        y[i] = kind == 'r' ? (x[i] < 0 ? 0 : x[i]) : kind == 's' ? x[i] * gate : kind == 'g' ? gate : x[i];
    }
}

/* Convolution: dense, or with a kernel for each channel. A linear layer is one on a map of one pixel. */
static void convolve(const float *restrict x, float *restrict y, const float *restrict weight,
                     const float *restrict bias, const window *restrict s, char kind)
{
    int tap_weights = s->depthwise ? s->channels : s->channels * s->outputs;
    for (int row = 0; row < s->rows; row++)
        for (int column = 0; column < s->columns; column++, y += s->outputs) {
            for (int o = 0; o < s->outputs; o++) y[o] = bias ? bias[o] : 0;
            for (int ky = 0; ky < s->kernel_height; ky++)
                for (int kx = 0; kx < s->kernel_width; kx++) {
                    int v = row * s->stride_y + ky - s->pad_y, u = column * s->stride_x + kx - s->pad_x;
                    if (v < 0 || v >= s->height || u < 0 || u >= s->width) continue;
                    const float *pixel = x + (v * s->width + u) * s->channels;
                    const float *w = weight + (ky * s->kernel_width + kx) * tap_weights;
                    if (s->depthwise)
                        for (int c = 0; c < s->channels; c++) y[c] += pixel[c] * w[c];
                    else
                        for (int i = 0; i < s->channels; i++, w += s->outputs)
                            for (int o = 0; o < s->outputs; o++) y[o] += pixel[i] * w[o];
                }
            activate(y, y, s->outputs, kind);
        }
}

/* The largest value of each window; windows lie within the map. */
static void largest(const float *x, float *y, const window *s)
{
    for (int row = 0; row < s->rows; row++)
        for (int column = 0; column < s->columns; column++)
            for (int c = 0; c < s->channels; c++, y++) {
                *y = x[(row * s->stride_y * s->width + column * s->stride_x) * s->channels + c];
                for (int ky = 0; ky < s->kernel_height; ky++)
                    for (int kx = 0; kx < s->kernel_width; kx++) {
                        int v = row * s->stride_y + ky, u = column * s->stride_x + kx;
                        float value = x[(v * s->width + u) * s->channels + c];
                        if (value > *y) *y = value;
                    }
            }
}

/* The mean of the map in each channel. */
static void mean(const float *restrict x, float *restrict y, int cells, int channels)
{
    for (int c = 0; c < channels; c++) y[c] = 0;
    for (int i = 0; i < cells; i++, x += channels)
        for (int c = 0; c < channels; c++) y[c] += x[c];
    for (int c = 0; c < channels; c++) y[c] /= (float)cells;
}

static void add(const float *a, const float *b, float *y, int count)
{
    for (int i = 0; i < count; i++) y[i] = a[i] + b[i];
}

/* Each channel times its gate. */
static void scale(const float *x, const float *gate, float *y, int cells, int channels)
{
    for (int i = 0; i < cells; i++)
        for (int c = 0; c < channels; c++) *y++ = *x++ * gate[c];
}
