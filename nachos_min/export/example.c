/* Reads images from standard input, one after the other as they lie in memory. Prints of each the class, its name,
   the exit that answered and the cumulative confidence. Arguments: other thresholds, one for each exit. */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    static network_value image[NETWORK_HEIGHT * NETWORK_WIDTH * NETWORK_CHANNELS];
    double thresholds[NETWORK_EXITS];
    network_answer answer;
    size_t got;

    if (count != 1 && count != 1 + NETWORK_EXITS) {
        fprintf(stderr, "thresholds must be %d numbers, got %d\n", NETWORK_EXITS, count - 1);
        return 2;
    }
    for (int i = 0; i < NETWORK_EXITS; i++) {
        char *end;
        thresholds[i] = network_thresholds[i];
        if (count == 1) continue;
        thresholds[i] = strtod(arguments[i + 1], &end);
        if (end == arguments[i + 1] || *end != '\0') {
            fprintf(stderr, "thresholds must be numbers, got %s\n", arguments[i + 1]);
            return 2;
        }
    }
    while ((got = fread(image, 1, sizeof image, stdin)) == sizeof image) {
        predict_full(image, thresholds, &answer);
        printf("%d\t%s\t%d\t%.17g\n", answer.label, network_classes[answer.label], answer.exit, answer.confidence);
    }
    if (got != 0) {
        fprintf(stderr, "images must have %d bytes each, the last has %d\n", (int)sizeof image, (int)got);
        return 2;
    }
    return 0;
}
