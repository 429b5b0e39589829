// Memory models behind the accelerator's AXI4 masters, and the AXI4 rules they check.
//
// The nominal memory accepts an address and a write beat in every cycle; the first read beat comes
// `latency` cycles after its address was taken, then one a cycle, bursts in order and back to back; a write
// response comes `latency` cycles after the last beat was taken. With a stall seed every channel waits at random.
//
// Each cycle: sample() looks at settled pins before the clock edge, drive() sets inputs after it.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "verilated.h"

constexpr uint64_t kPage = 4096;

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

inline std::string hex(uint64_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%" PRIx64, value);
    return text;
}

struct Region {
    const char* name;
    uint64_t base;
    std::vector<uint8_t> bytes;

    bool holds(uint64_t address, uint64_t size) const {
        return address >= base && address - base + size <= bytes.size();
    }
};

using Regions = std::vector<Region*>;

// Phases of random length: open, shut, open by the toss of a coin, rarely open. Without a seed always open.
class Gate {
  public:
    Gate(uint64_t seed, uint64_t channel) : seeded_(seed != 0), state_(seed * 0x9E3779B97F4A7C15u ^ (channel << 32 | 1)) {
        for (int i = 0; i < 8; ++i) random();
    }
    // A gate that is shut stays shut: a memory that stopped answering.
    void shut(bool shut) { shut_ = shut; }
    bool open() {
        if (shut_) return false;
        if (!seeded_) return true;
        if (left_-- == 0) {
            const uint64_t draw = random();
            phase_ = draw & 3;
            left_ = (draw >> 8) % (phase_ == 1 ? 24 : 96);
        }
        switch (phase_) {
            case 0: return true;
            case 1: return false;
            case 2: return random() & 1;
            default: return (random() & 7) == 0;
        }
    }
    uint64_t delay() { return seeded_ ? random() % 48 : 0; }

  private:
    uint64_t random() {  // xorshift64*, high bits
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Du >> 24;
    }
    bool seeded_, shut_ = false;
    uint64_t state_;
    uint64_t left_ = 0;
    unsigned phase_ = 0;
};

struct Burst {
    unsigned beats;      // not yet moved
    uint64_t ready_at;   // first cycle in which its data may be on the pins
    uint8_t* data;
};

struct AddressPins {
    CData& valid;
    CData& ready;
    QData& address;
    CData& length;
    CData& size;
    CData& burst;
};

// Address channel of one direction: AXI4 rules, and the burst inside one of the regions, which may change.
class AddressChannel {
  public:
    AddressChannel(const char* name, AddressPins pins, const Regions& regions, Gate gate, size_t beat_bytes)
        : name_(name), pins_(pins), regions_(regions), gate_(gate), beat_bytes_(beat_bytes) {
        while (size_t{1} << size_code_ < beat_bytes) ++size_code_;
    }

    // True, and the burst, if an address was taken in this cycle.
    bool sample(uint64_t now, Burst& burst) {
        if (held_ && !(pins_.valid && pins_.address == address_ && pins_.length == length_)) {
            violation(now, "address, length or valid changed before ready");
        }
        held_ = pins_.valid && !pins_.ready;
        address_ = pins_.address;
        length_ = pins_.length;
        if (!pins_.valid || !pins_.ready) return false;
        burst = check(now);
        return true;
    }
    void drive() { pins_.ready = gate_.open(); }
    void clear() { held_ = false; }
    Gate& gate() { return gate_; }
    [[noreturn]] void violation(uint64_t now, const std::string& what) const {
        fail(std::string(name_) + ", cycle " + std::to_string(now) + ": " + what + " (last address " +
             hex(address_) + ", " + std::to_string(length_ + 1) + " beats)");
    }

  private:
    Burst check(uint64_t now) const {
        const unsigned beats = pins_.length + 1u;
        const uint64_t first = pins_.address, size = beats * beat_bytes_;
        if (pins_.burst != 1) violation(now, "burst type is not INCR");
        if (pins_.size != size_code_) violation(now, "size is not the bus width");
        if (first % beat_bytes_) violation(now, "address is not aligned to the bus width");
        if (first / kPage != (first + size - 1) / kPage) violation(now, "burst crosses a 4 KB boundary");
        std::string allowed;
        for (Region* region : regions_) {
            if (region->holds(first, size)) return {beats, 0, region->bytes.data() + (first - region->base)};
            allowed += std::string(allowed.empty() ? "" : ", ") + region->name + " " + hex(region->base) + " to " +
                       hex(region->base + region->bytes.size() - 1);
        }
        violation(now, "burst leaves its memory: " + allowed);
    }
    const char* name_;
    AddressPins pins_;
    const Regions& regions_;
    Gate gate_;
    size_t beat_bytes_;
    unsigned size_code_ = 0;
    bool held_ = false;
    uint64_t address_ = 0;
    unsigned length_ = 0;
};

template <class Data>
struct ReadPins {
    CData& valid;
    CData& ready;
    Data& data;
    CData& response;
    CData& last;
};

template <class Data>
class ReadMemory {
  public:
    // `fail_at`: number (from 1) of the beat that gets an error response; 0 is none.
    ReadMemory(AddressChannel address, ReadPins<Data> pins, Gate gate, uint64_t latency, uint64_t fail_at)
        : address_(std::move(address)), pins_(pins), gate_(gate), latency_(latency), fail_at_(fail_at) {}

    void sample(uint64_t now) {
        if (pins_.valid && pins_.ready) {
            Burst& burst = queue_.front();
            burst.data += sizeof(Data);
            ++beats_;
            if (--burst.beats == 0) queue_.pop_front();
            taken_ = true;
        }
        Burst burst;
        if (address_.sample(now, burst)) {
            burst.ready_at = now + latency_ + gate_.delay();
            queue_.push_back(burst);
        }
    }
    void drive(uint64_t now) {
        address_.drive();
        if (taken_) pins_.valid = 0;
        taken_ = false;
        if (pins_.valid || queue_.empty() || queue_.front().ready_at > now || !gate_.open()) return;
        const Burst& burst = queue_.front();
        pins_.valid = 1;
        pins_.last = burst.beats == 1;
        pins_.response = beats_ + 1 == fail_at_ ? 2 : 0;
        std::memcpy(&pins_.data, burst.data, sizeof(Data));
    }
    void clear() {
        queue_.clear();
        address_.clear();
        taken_ = false;
        pins_.valid = 0;
    }
    // No more faults.
    void heal() {
        fail_at_ = 0;
        address_gate().shut(false);
        gate_.shut(false);
    }
    Gate& address_gate() { return address_.gate(); }
    Gate& data_gate() { return gate_; }
    uint64_t beats() const { return beats_; }

  private:
    AddressChannel address_;
    ReadPins<Data> pins_;
    Gate gate_;
    uint64_t latency_, fail_at_;
    uint64_t beats_ = 0;
    bool taken_ = false;
    std::deque<Burst> queue_;
};

template <class Data, class Strobe>
struct WritePins {
    CData& valid;
    CData& ready;
    Data& data;
    Strobe& strobe;
    CData& last;
    CData& response_valid;
    CData& response_ready;
    CData& response;
};

template <class Data, class Strobe>
class WriteMemory {
  public:
    // `fail_at`: number (from 1) of the burst that gets an error response; 0 is none.
    WriteMemory(AddressChannel address, WritePins<Data, Strobe> pins, Gate data_gate, Gate response_gate,
                uint64_t latency, uint64_t fail_at)
        : address_(std::move(address)), pins_(pins), data_gate_(data_gate), response_gate_(response_gate),
          latency_(latency), fail_at_(fail_at) {}

    void sample(uint64_t now) {
        if (pins_.response_valid && pins_.response_ready) {
            responses_.pop_front();
            ++bursts_;
            taken_ = true;
        }
        Burst burst;
        if (address_.sample(now, burst)) open_.push_back(burst);
        if (held_ && !(pins_.valid && same(held_beat_))) {
            address_.violation(now, "write data, strobe, last or valid changed before ready");
        }
        held_ = pins_.valid && !pins_.ready;
        if (held_) held_beat_ = beat();
        if (pins_.valid && pins_.ready) early_.push_back(beat());
        while (!early_.empty() && !open_.empty()) {  // AXI4 lets data come before its address
            store(now, early_.front());
            early_.pop_front();
        }
    }
    void drive(uint64_t now) {
        address_.drive();
        pins_.ready = data_gate_.open();
        if (taken_) pins_.response_valid = 0;
        taken_ = false;
        if (pins_.response_valid || responses_.empty() || responses_.front() > now || !response_gate_.open()) return;
        pins_.response_valid = 1;
        pins_.response = bursts_ + 1 == fail_at_ ? 2 : 0;
    }
    void clear() {
        open_.clear();
        early_.clear();
        responses_.clear();
        address_.clear();
        held_ = taken_ = false;
        pins_.response_valid = 0;
    }
    // No more faults.
    void heal() {
        fail_at_ = 0;
        for (Gate* gate : {&address_.gate(), &data_gate_, &response_gate_}) gate->shut(false);
    }
    Gate& address_gate() { return address_.gate(); }
    Gate& data_gate() { return data_gate_; }
    Gate& response_gate() { return response_gate_; }
    uint64_t beats() const { return beats_; }
    bool idle() const { return open_.empty() && early_.empty() && responses_.empty(); }

  private:
    struct Beat {
        Data data;
        Strobe strobe;
        CData last;
    };
    Beat beat() const { return {pins_.data, pins_.strobe, pins_.last}; }
    bool same(const Beat& other) const {
        return pins_.last == other.last && !std::memcmp(&pins_.data, &other.data, sizeof(Data)) &&
               !std::memcmp(&pins_.strobe, &other.strobe, sizeof(Strobe));
    }
    void store(uint64_t now, const Beat& beat) {
        Burst& burst = open_.front();
        if (beat.last != (burst.beats == 1)) {
            address_.violation(now, "WLAST is " + std::to_string(beat.last) + " with " +
                                        std::to_string(burst.beats) + " beats of the burst left");
        }
        const auto* data = reinterpret_cast<const uint8_t*>(&beat.data);
        const auto* strobe = reinterpret_cast<const uint8_t*>(&beat.strobe);
        for (size_t byte = 0; byte < sizeof(Data); ++byte) {
            if (strobe[byte / 8] >> byte % 8 & 1) burst.data[byte] = data[byte];
        }
        burst.data += sizeof(Data);
        ++beats_;
        if (--burst.beats == 0) {
            open_.pop_front();
            responses_.push_back(now + latency_ + response_gate_.delay());
        }
    }
    AddressChannel address_;
    WritePins<Data, Strobe> pins_;
    Gate data_gate_, response_gate_;
    uint64_t latency_, fail_at_;
    uint64_t beats_ = 0, bursts_ = 0;
    bool held_ = false, taken_ = false;
    Beat held_beat_{};
    std::deque<Burst> open_;
    std::deque<Beat> early_;
    std::deque<uint64_t> responses_;
};
