// The functions of zlib that Verilator's FST writer calls; see lz4.h. The stream that they make is valid and
// stored, not compressed, so that the writer stores the data itself.
#pragma once

#include <cstdint>
#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = uLong;
constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + (size / 65535 + 1) * 5 + 6; }

inline int compress2(Bytef* target, uLongf* target_size, const Bytef* source, uLong size, int) {
    if (*target_size < compressBound(size)) return Z_BUF_ERROR;
    Bytef* next = target;
    *next++ = 0x78;  // 32 KB window, no dictionary
    *next++ = 0x01;
    uint32_t a = 1, b = 0;
    for (uLong i = 0; i < size; ++i) {
        a = (a + source[i]) % 65521;
        b = (b + a) % 65521;
    }
    do {
        const uLong part = size < 65535 ? size : 65535;
        *next++ = part == size;  // the last block; stored
        for (uLong field : {part, part ^ 0xFFFF}) {
            *next++ = static_cast<Bytef>(field);
            *next++ = static_cast<Bytef>(field >> 8);
        }
        std::memcpy(next, source, part);
        next += part;
        source += part;
        size -= part;
    } while (size);
    for (uint32_t half : {b, a}) {
        *next++ = static_cast<Bytef>(half >> 8);
        *next++ = static_cast<Bytef>(half);
    }
    *target_size = static_cast<uLongf>(next - target);
    return Z_OK;
}
