// Serves a board to a driver in another process: one request a line on standard input, one answer on standard
// output. sim/simulated_device.py and the C test bus speak it.
//
//   read ADDRESS                 ok VALUE
//   write ADDRESS VALUE          ok
//   allocate ADDRESS SIZE        ok                memory that both masters reach, of kPoison
//   free ADDRESS                 ok
//   put ADDRESS SIZE <bytes>     ok                the bytes follow the line
//   get ADDRESS SIZE             ok <bytes>        the bytes follow the line
//   wait CYCLES                  ok CYCLES RAISED  runs until the interrupt is raised (1), or so many cycles (0)
//   reset                        ok
//
// Numbers are decimal. What cannot be done, and what breaks an AXI rule, is answered with "error <why>".
#pragma once

#include <algorithm>
#include <list>

#include "board.h"

template <class Board>
class Server {
  public:
    explicit Server(Board& board) : board_(board) {}

    void run() {
        board_.reset();
        char line[128];
        while (std::fgets(line, sizeof line, stdin)) {
            try {
                serve(line);
            } catch (const std::exception& exception) {
                std::printf("error %s\n", exception.what());
            }
            std::fflush(stdout);
        }
    }

  private:
    void serve(const char* line) {
        char verb[16] = "";
        uint64_t first = 0, second = 0;
        std::sscanf(line, "%15s %" SCNu64 " %" SCNu64, verb, &first, &second);
        const std::string name = verb;
        if (name == "read") {
            std::printf("ok %u\n", board_.read(static_cast<uint32_t>(first)));
        } else if (name == "write") {
            board_.write(static_cast<uint32_t>(first), static_cast<uint32_t>(second));
            std::puts("ok");
        } else if (name == "allocate") {
            allocate(first, second);
            std::puts("ok");
        } else if (name == "free") {
            release(first);
            std::puts("ok");
        } else if (name == "put") {
            put(first, second);
            std::puts("ok");
        } else if (name == "get") {
            const uint8_t* bytes = memory(first, second);
            std::puts("ok");
            std::fwrite(bytes, 1, second, stdout);
        } else if (name == "wait") {
            const uint64_t begin = board_.now();
            while (!board_.interrupt() && board_.now() - begin < first) board_.cycle();
            if (board_.interrupt()) freed_.clear();  // the accelerator ends its bursts before it interrupts
            std::printf("ok %" PRIu64 " %d\n", board_.now() - begin, board_.interrupt());
        } else if (name == "reset") {
            board_.reset();
            freed_.clear();
            std::puts("ok");
        } else {
            fail("unknown request: " + name);
        }
    }
    void allocate(uint64_t address, uint64_t size) {
        size = (size + Board::kBeat - 1) / Board::kBeat * Board::kBeat;
        for (const Region& region : regions_) {
            if (address < region.base + region.bytes.size() && region.base < address + size) {
                fail(hex(address) + " is allocated already");
            }
        }
        regions_.push_back({"buffer", address, std::vector<uint8_t>(size, kPoison)});
        publish();
    }
    void release(uint64_t address) {
        const auto found = std::find_if(regions_.begin(), regions_.end(),
                                        [&](const Region& region) { return region.base == address; });
        if (found == regions_.end()) fail("nothing is allocated at " + hex(address));
        freed_.splice(freed_.end(), regions_, found);
        publish();
    }
    void publish() {
        Regions all;
        for (Region& region : regions_) all.push_back(&region);
        board_.readable0 = board_.readable1 = board_.writable0 = all;
    }
    void put(uint64_t address, uint64_t size) {
        std::vector<uint8_t> bytes(size);  // taken whole, so that an error leaves the stream at the next line
        if (std::fread(bytes.data(), 1, size, stdin) != size) fail("the bytes of a put are cut short");
        std::copy(bytes.begin(), bytes.end(), memory(address, size));
    }
    uint8_t* memory(uint64_t address, uint64_t size) {
        for (Region& region : regions_) {
            if (region.holds(address, size)) return region.bytes.data() + (address - region.base);
        }
        fail("no buffer holds " + std::to_string(size) + " bytes at " + hex(address));
    }

    Board& board_;
    std::list<Region> regions_;
    std::list<Region> freed_;  // bursts that are under way may still use these
};
