// The two functions of LZ4 that Verilator's FST writer calls, so that a wave needs no library besides the
// compiler's own. The block that they make is valid, holds literals only, and is no smaller than its source;
// the writer then stores most of its data as it is.
#pragma once

#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* source, char* block, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    char* next = block;
    *next++ = static_cast<char>((size < 15 ? size : 15) << 4);
    if (size >= 15) {
        int left = size - 15;
        for (; left >= 255; left -= 255) *next++ = static_cast<char>(255);
        *next++ = static_cast<char>(left);
    }
    std::memcpy(next, source, static_cast<size_t>(size));
    return static_cast<int>(next - block) + size;
}
