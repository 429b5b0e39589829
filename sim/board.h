// The accelerator's Verilog as on a board: clock, reset, a register master and two memories.
//
// `Observer` sees every clock cycle: dump() before and after the rising edge, sample() before it.
#pragma once

#include <memory>
#include <type_traits>

#include "axi_memory.h"

constexpr uint8_t kPoison = 0x80;  // -128, what memory holds before it is written: no output has this value
constexpr uint64_t kResetCycles = 8;

struct BoardTiming {
    uint64_t read_latency, write_latency;
    uint64_t stalls;                                       // seed of random waits; 0 is none
    uint64_t fail_read0 = 0, fail_read1 = 0, fail_write = 0;  // see ReadMemory and WriteMemory
};

template <class Top, class Observer>
class Board {
    using ReadData = std::remove_reference_t<decltype(Top::m_axi_gmem0_rdata)>;
    using WriteStrobe = std::remove_reference_t<decltype(Top::m_axi_gmem0_wstrb)>;

  public:
    static constexpr size_t kBeat = sizeof(ReadData);

    Board(const BoardTiming& timing, Observer& observer)
        : memory0_({"m_axi_gmem0 read",
                    {top_->m_axi_gmem0_arvalid, top_->m_axi_gmem0_arready, top_->m_axi_gmem0_araddr,
                     top_->m_axi_gmem0_arlen, top_->m_axi_gmem0_arsize, top_->m_axi_gmem0_arburst},
                    readable0, Gate(timing.stalls, 1), kBeat},
                   {top_->m_axi_gmem0_rvalid, top_->m_axi_gmem0_rready, top_->m_axi_gmem0_rdata,
                    top_->m_axi_gmem0_rresp, top_->m_axi_gmem0_rlast},
                   Gate(timing.stalls, 2), timing.read_latency, timing.fail_read0),
          memory1_({"m_axi_gmem1 read",
                    {top_->m_axi_gmem1_arvalid, top_->m_axi_gmem1_arready, top_->m_axi_gmem1_araddr,
                     top_->m_axi_gmem1_arlen, top_->m_axi_gmem1_arsize, top_->m_axi_gmem1_arburst},
                    readable1, Gate(timing.stalls, 3), kBeat},
                   {top_->m_axi_gmem1_rvalid, top_->m_axi_gmem1_rready, top_->m_axi_gmem1_rdata,
                    top_->m_axi_gmem1_rresp, top_->m_axi_gmem1_rlast},
                   Gate(timing.stalls, 4), timing.read_latency, timing.fail_read1),
          writes_({"m_axi_gmem0 write",
                   {top_->m_axi_gmem0_awvalid, top_->m_axi_gmem0_awready, top_->m_axi_gmem0_awaddr,
                    top_->m_axi_gmem0_awlen, top_->m_axi_gmem0_awsize, top_->m_axi_gmem0_awburst},
                   writable0, Gate(timing.stalls, 5), kBeat},
                  {top_->m_axi_gmem0_wvalid, top_->m_axi_gmem0_wready, top_->m_axi_gmem0_wdata,
                   top_->m_axi_gmem0_wstrb, top_->m_axi_gmem0_wlast, top_->m_axi_gmem0_bvalid,
                   top_->m_axi_gmem0_bready, top_->m_axi_gmem0_bresp},
                  Gate(timing.stalls, 6), Gate(timing.stalls, 7), timing.write_latency, timing.fail_write),
          lite_gate_(timing.stalls, 8),
          observer_(observer) {}
    Board(const Board&) = delete;
    ~Board() { top_->final(); }

    // One clock cycle. Inputs change after the edge, so what the models see before it is what the design sees.
    void cycle() {
        top_->ap_clk = 0;
        top_->eval();
        observer_.dump(*top_, now_);
        memory0_.sample(now_);
        memory1_.sample(now_);
        writes_.sample(now_);
        write_address_taken_ = top_->s_axi_control_awvalid && top_->s_axi_control_awready;
        write_data_taken_ = top_->s_axi_control_wvalid && top_->s_axi_control_wready;
        write_answered_ = top_->s_axi_control_bvalid && top_->s_axi_control_bready;
        read_address_taken_ = top_->s_axi_control_arvalid && top_->s_axi_control_arready;
        read_answered_ = top_->s_axi_control_rvalid && top_->s_axi_control_rready;
        read_value_ = top_->s_axi_control_rdata;
        lite_response_ = write_answered_ ? top_->s_axi_control_bresp : top_->s_axi_control_rresp;
        observer_.sample(*top_);
        top_->ap_clk = 1;
        top_->eval();
        observer_.dump(*top_, now_);
        ++now_;
        memory0_.drive(now_);
        memory1_.drive(now_);
        writes_.drive(now_);
    }

    void reset() {
        top_->ap_rst_n = 0;
        top_->s_axi_control_awvalid = top_->s_axi_control_wvalid = top_->s_axi_control_arvalid = 0;
        top_->s_axi_control_bready = top_->s_axi_control_rready = 0;
        top_->m_axi_gmem0_bvalid = 0;
        for (uint64_t i = 0; i < kResetCycles; ++i) {
            // What the design had outstanding is gone with the reset; the interconnect sees to that in a system.
            memory0_.clear();
            memory1_.clear();
            writes_.clear();
            top_->ap_clk = 0;
            top_->eval();
            observer_.dump(*top_, now_);
            top_->ap_clk = 1;
            top_->eval();
            observer_.dump(*top_, now_);
            ++now_;
        }
        top_->ap_rst_n = 1;
        memory0_.drive(now_);
        memory1_.drive(now_);
        writes_.drive(now_);
    }

    void write(uint32_t address, uint32_t value) {
        top_->s_axi_control_awaddr = address;
        top_->s_axi_control_wdata = value;
        top_->s_axi_control_wstrb = 0xF;
        bool address_left = true, data_left = true;
        wait("write", address, [&] {
            if (write_address_taken_) address_left = top_->s_axi_control_awvalid = 0;
            if (write_data_taken_) data_left = top_->s_axi_control_wvalid = 0;
            if (address_left && lite_gate_.open()) top_->s_axi_control_awvalid = 1;
            if (data_left && lite_gate_.open()) top_->s_axi_control_wvalid = 1;
            return !address_left && !data_left;
        });
        answer("write", address, top_->s_axi_control_bready, write_answered_);
    }
    uint32_t read(uint32_t address) {
        top_->s_axi_control_araddr = address;
        bool address_left = true;
        wait("read", address, [&] {
            if (read_address_taken_) address_left = top_->s_axi_control_arvalid = 0;
            if (address_left && lite_gate_.open()) top_->s_axi_control_arvalid = 1;
            return !address_left;
        });
        return answer("read", address, top_->s_axi_control_rready, read_answered_);
    }

    bool interrupt() const { return top_->__SYM__interrupt; }
    uint64_t now() const { return now_; }

    // What each master may access; the memory models read these lists at every burst.
    Regions readable0, readable1, writable0;

  private:
    // Waits until `done`; a register access that takes this long hangs.
    template <class Condition>
    void wait(const char* what, uint32_t address, Condition done) {
        for (int i = 0; i < 100000; ++i) {
            cycle();
            if (done()) return;
        }
        fail(std::string("no answer to the ") + what + " of register " + hex(address));
    }
    uint32_t answer(const char* what, uint32_t address, CData& ready, const bool& answered) {
        while (!lite_gate_.open()) cycle();
        ready = 1;
        uint32_t value = 0;
        wait(what, address, [&] {
            value = read_value_;
            return answered;
        });
        ready = 0;
        if (lite_response_ != 0) fail(std::string("error response to the ") + what + " of register " + hex(address));
        return value;
    }

    std::unique_ptr<Top> top_ = std::make_unique<Top>();

  protected:
    Top& top() { return *top_; }

    ReadMemory<ReadData> memory0_, memory1_;
    WriteMemory<ReadData, WriteStrobe> writes_;

  private:
    Gate lite_gate_;
    Observer& observer_;
    uint64_t now_ = 0;
    bool write_address_taken_ = false, write_data_taken_ = false, write_answered_ = false;
    bool read_address_taken_ = false, read_answered_ = false;
    uint32_t read_value_ = 0, lite_response_ = 0;
};
