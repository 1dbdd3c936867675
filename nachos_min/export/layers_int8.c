/* Layers in integers, channels last: int8 maps, weights [outputs][kernel height][kernel width][channels], of a
   depthwise convolution [channels][kernel height][kernel width]. `export/quantised.py` says what factors and shifts are. */

/* total / 2^shift, rounded half up and clipped. It takes >> of a negative number to be a division rounded down. */
static int32_t rounded(int64_t total, int shift, int32_t least, int32_t most)
{
    int64_t y = (total + ((int64_t)1 << (shift - 1))) >> shift;
    return (int32_t)(y < least ? least : y > most ? most : y);
}

/* An image value times its steps per unit. */
static int8_t quantised(float value, float steps)
{
    float y = value * steps;
    return (int8_t)lrintf(y < -127 ? -127 : y > 127 ? 127 : y);
}

/* The image, scaled and in integers. */
static void quantise_image(const network_value *image, int8_t *y, const float *steps, int count, int channels)
{
    for (int i = 0; i < count; i++) y[i] = quantised(scaled(image, i), steps[i % channels]);
}

/* A resized image in integers. */
static void quantise(const float *x, int8_t *y, const float *steps, int count, int channels)
{
    for (int i = 0; i < count; i++) y[i] = quantised(x[i], steps[i % channels]);
}

/* The sum of one output value of a convolution, dense or depthwise. A linear layer is one on a map of one pixel. */
static int32_t sum_at(const int8_t *x, const int8_t *weight, const window *s, int row, int column, int output)
{
    int depth = s->depthwise ? 1 : s->channels;
    int top = row * s->stride_y - s->pad_y, below = s->height - top;
    int left = column * s->stride_x - s->pad_x, right = s->width - left;
    int first = left < 0 ? -left : 0, end = right < s->kernel_width ? right : s->kernel_width;
    int32_t sum = 0;
    weight += output * s->kernel_height * s->kernel_width * depth;
    for (int ky = top < 0 ? -top : 0; ky < s->kernel_height && ky < below; ky++) {
        const int8_t *w = weight + (ky * s->kernel_width + first) * depth;
        const int8_t *pixel = x + ((top + ky) * s->width + left + first) * s->channels;
        if (s->depthwise)
            for (int kx = first; kx < end; kx++, pixel += s->channels) sum += pixel[output] * *w++;
        else
            for (int i = 0; i < (end - first) * depth; i++) sum += pixel[i] * w[i];
    }
    return sum;
}

/* Convolution; `least` is 0 if ReLU or h-sigmoid follow. With factors `after`, h-swish follows: x clip(x + 3, 0, 6) / 6,
   of an x with 14 bits behind the point. */
static void convolve_int8(const int8_t *restrict x, int8_t *restrict y, const int8_t *restrict weight,
                          const int32_t *restrict bias, const int32_t *restrict factor,
                          const int32_t *restrict after, const window *restrict s, int shift, int last, int least)
{
    for (int row = 0; row < s->rows; row++)
        for (int column = 0; column < s->columns; column++)
            for (int o = 0; o < s->outputs; o++) {
                int64_t total = (int64_t)(bias[o] + sum_at(x, weight, s, row, column, o)) * factor[o];
                if (after) {
                    int32_t number = rounded(total, shift, -(1 << 24), 1 << 24), gate = number + (3 << 14);
                    gate = gate < 0 ? 0 : gate > 6 << 14 ? 6 << 14 : gate;
                    total = ((int64_t)number * gate >> 14) * after[o];
                }
                *y++ = (int8_t)rounded(total, last, least, 127);
            }
}

/* The outputs of a head. */
static void head(const int8_t *restrict x, float *restrict y, const int8_t *restrict weight,
                 const int32_t *restrict bias, const float *restrict unit, const window *restrict s)
{
    for (int o = 0; o < s->outputs; o++) y[o] = (float)(bias[o] + sum_at(x, weight, s, 0, 0, o)) * unit[o];
}

/* The largest value of each window; windows lie within the map. */
static void largest_int8(const int8_t *x, int8_t *y, const window *s)
{
    for (int row = 0; row < s->rows; row++)
        for (int column = 0; column < s->columns; column++)
            for (int c = 0; c < s->channels; c++, y++) {
                *y = -127;
                for (int ky = 0; ky < s->kernel_height; ky++)
                    for (int kx = 0; kx < s->kernel_width; kx++) {
                        int v = row * s->stride_y + ky, u = column * s->stride_x + kx;
                        int8_t value = x[(v * s->width + u) * s->channels + c];
                        if (value > *y) *y = value;
                    }
            }
}

static void relu_int8(const int8_t *x, int8_t *y, int count)
{
    for (int i = 0; i < count; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

/* The mean of the map in each channel. */
static void mean_int8(const int8_t *x, int8_t *y, const int32_t *factor, int shift, int cells, int channels)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int i = 0; i < cells; i++) sum += x[i * channels + c];
        y[c] = (int8_t)rounded((int64_t)sum * factor[c], shift, -127, 127);
    }
}

static void add_int8(const int8_t *a, const int8_t *b, int8_t *y, const int32_t *of_a, const int32_t *of_b, int shift,
                     int cells, int channels)
{
    for (int i = 0; i < cells; i++)
        for (int c = 0; c < channels; c++) {
            int64_t sum = (int64_t)*a++ * of_a[c] + (int64_t)*b++ * of_b[c];
            *y++ = (int8_t)rounded(sum, shift, -127, 127);
        }
}

/* Each channel times its gate. */
static void scale_int8(const int8_t *x, const int8_t *gate, int8_t *y, const int32_t *factor, int shift, int cells,
                       int channels)
{
    for (int i = 0; i < cells; i++)
        for (int c = 0; c < channels; c++)
            *y++ = (int8_t)rounded((int64_t)(*x++ * gate[c]) * factor[c], shift, -127, 127);
}
