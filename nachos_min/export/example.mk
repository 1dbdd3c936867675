# `make` builds the example, `make size` prints flash (text + data) and RAM (data + bss) of the network alone.
# For a microcontroller: make size CC=arm-none-eabi-gcc SIZE=arm-none-eabi-size CPU="-mcpu=cortex-m4 -mthumb"
CC ?= cc
SIZE ?= size
CFLAGS ?= -O3
STRICT = -std=c99 -Wall -Wextra

example: example.c network.c network.h
	$(CC) $(CPU) $(STRICT) $(CFLAGS) -o $@ example.c network.c -lm

size: network.c network.h
	$(CC) $(CPU) $(STRICT) -Os -c -o network.o network.c
	$(SIZE) network.o

clean:
	rm -f example network.o

.PHONY: size clean
