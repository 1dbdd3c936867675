/* Scaling, resizing and the exit policy, the same in every arithmetic. */

/* A value of the image as the network takes it. */
static float scaled(const network_value *image, int i)
{
    int feature = i % (int)(sizeof image_mean / sizeof *image_mean);
    return (float)((image[i] - image_mean[feature]) * image_inverse[feature]);
}

/* Values of the image, from `begin` on, scaled. */
static void scale_image(const network_value *image, float *y, int count)
{
    for (int i = 0; i < count; i++) y[i] = scaled(image, i);
}

/* Rows of the scaled image brought to another number: each is a weighted sum of `taps` rows. */
static void resize_rows(const network_value *image, float *y, int rows, int row_values, int taps)
{
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < row_values; i++, y++) {
            *y = 0;
            for (int t = 0; t < taps; t++)
                *y += scaled(image, row_pixels[t * rows + row] * row_values + i) * row_weights[t * rows + row];
        }
}

/* Columns brought to another number, in each of some rows of `width` pixels. */
static void resize_columns(const float *x, float *y, int rows, int width, int columns, int channels, int taps)
{
    for (int row = 0; row < rows; row++, x += width * channels)
        for (int column = 0; column < columns; column++)
            for (int c = 0; c < channels; c++, y++) {
                *y = 0;
                for (int t = 0; t < taps; t++) {
                    int tap = t * columns + column;
                    *y += x[column_pixels[tap] * channels + c] * column_weights[tap];
                }
            }
}

/* The class with the largest logit, the first of equal ones. */
static int best(const float *logits)
{
    int label = 0;
    for (int c = 1; c < NETWORK_CLASSES; c++)
        if (logits[c] > logits[label]) label = c;
    return label;
}

/* Confidence of an exit as its head learned it: the sigmoid of its last output. */
static double learned(const float *logits)
{
    return (float)(1 / (1 + exp(-(double)logits[NETWORK_CLASSES])));
}

/* Confidence of an exit by the largest softmax of logits / temperature. */
static double softmax(const float *logits, double temperature)
{
    double top = logits[best(logits)] / temperature, sum = 0;
    for (int c = 0; c < NETWORK_CLASSES; c++) sum += exp(logits[c] / temperature - top);
    return (float)(1 / sum);
}

/* Fill in the answer of an exit; return whether the image leaves there. */
static int leaves(network_answer *answer, int exit, double confidence, double threshold)
{
    if (!(confidence >= threshold)) return 0;
    answer->label = best(logits), answer->exit = exit, answer->confidence = confidence, answer->logits = logits;
    return 1;
}
