// Which lines a hostfile may have, and which hosts count as there.
#include "launch/supervisor/hosts.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "runtime/error.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;

auto host(const std::string& name, int slots) {
  return testing::AllOf(Field(&Host::name, name), Field(&Host::slots, slots));
}

class Hosts : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(file_); }

  std::vector<Host> read(const std::string& lines) {
    std::ofstream(file_) << lines;
    return read_hosts(file_);
  }
  std::string refusal(const std::string& lines) {
    try {
      read(lines);
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was refused";
  }

  std::string file_ = testing::TempDir() + "hosts-" + std::to_string(getpid());
};

TEST_F(Hosts, LinesNameAHostAndItsSlots) {
  EXPECT_THAT(read("# mine\n\n  a slots=2  # two\nb.example.org\tslots=16\n"),
              ElementsAre(host("a", 2), host("b.example.org", 16)));
}

TEST_F(Hosts, ARepeatedHostHasTheSlotsOfBothLines) {
  EXPECT_THAT(read("a slots=2\nb slots=1\na slots=3\n"), ElementsAre(host("a", 5), host("b", 1)));
}

TEST_F(Hosts, WhatIsWrittenIsReadAgain) {
  const std::vector<Host> hosts = read("a slots=2\nb slots=1\n");
  EXPECT_THAT(read(hostfile_of(hosts)), ElementsAre(host("a", 2), host("b", 1)));
  EXPECT_EQ(slots_of(hosts), 3);
}

TEST_F(Hosts, MoreSlotsThanCanBeCountedAreRefused) {
  EXPECT_THAT(refusal("a slots=2147483647\nb slots=2147483647\n"),
              AllOf(HasSubstr("line 1"), HasSubstr("2147483647"), HasSubstr("at most 1048576")));
  EXPECT_THAT(refusal("a slots=1048576\na slots=1\n"), AllOf(HasSubstr("line 2"), HasSubstr("1048577")));
}

TEST_F(Hosts, AFolderIsRefused) {
  try {
    read_hosts(testing::TempDir());
    ADD_FAILURE() << "a folder was taken";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("is a folder"));
  }
}

TEST_F(Hosts, OtherLinesAreRefused) {
  for (const char* line : {"a", "a slots", "a slots=", "a slots=0", "a slots=-1", "a slots=two", "a slots=2x",
                           "a slots=99999999999", "a slots=2 b", "a max_slots=2", "slots=2"}) {
    EXPECT_THAT(refusal(std::string("ok slots=1\n") + line + "\n"),
                testing::AllOf(HasSubstr(file_ + ", line 2"), HasSubstr("NAME slots=N")))
        << line;
  }
  EXPECT_THAT(refusal("# nothing\n"), HasSubstr("names no host"));
}

TEST(AbsentHosts, AMissingFileIsNamed) { EXPECT_THROW(read_hosts("/nowhere/hosts"), UserError); }

TEST(ThisMachine, IsKnownByItsNamesAndAddresses) {
  for (const std::string& own : {std::string("localhost"), std::string("127.0.0.1"), host_name()})
    EXPECT_TRUE(is_this_machine(own)) << own;
  for (const char* other : {"198.51.100.1", "no-such-host.invalid"})
    EXPECT_FALSE(is_this_machine(other)) << other;
}

/// An agent that answers for the address 198.51.100.1, fails for .2 and hangs for .3.
std::string agent_script(const std::string& file) {
  std::ofstream(file)
      << "#!/bin/sh\ncase $1 in *.1) exec sh -c \"$2\";; *.2) exit 255;; *) exec sleep 60;; esac\n";
  std::filesystem::permissions(file, std::filesystem::perms::owner_all);
  return file;
}

TEST(Answering, OnlyHostsThatAnswerInTimeAreThere) {
  const std::string file = agent_script(testing::TempDir() + "agent-" + std::to_string(getpid()));
  const std::vector<Host> hosts{
      {"localhost", 1}, {"198.51.100.1", 2}, {"198.51.100.2", 3}, {"198.51.100.3", 4}};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(answering(hosts, {file, std::chrono::seconds(2)}, "true"),
              ElementsAre(host("localhost", 1), host("198.51.100.1", 2)));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_THAT(answering(hosts, {file, std::chrono::seconds(1)}, "exit 3"), ElementsAre(host("localhost", 1)));
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace lamina
