/* channels/sms/smpp_status.c - see smpp_status.h. */
#include "channels/sms/smpp_status.h"

#include <stddef.h>

/* clang-format off */
static const struct smpp_meaning meanings[] = {
    {0x00, SMPP_PERMANENT, "ESME_ROK",              "taken"},
    {0x01, SMPP_PERMANENT, "ESME_RINVMSGLEN",       "the message centre refuses the length of the text"},
    {0x02, SMPP_PERMANENT, "ESME_RINVCMDLEN",       "the message centre cannot read our request"},
    {0x03, SMPP_PERMANENT, "ESME_RINVCMDID",        "the message centre does not know this request"},
    {0x04, SMPP_RETRY,     "ESME_RINVBNDSTS",       "the session was not ready"},
    {0x05, SMPP_RETRY,     "ESME_RALYBND",          "the account is bound already"},
    {0x06, SMPP_PERMANENT, "ESME_RINVPRTFLG",       "the priority is refused"},
    {0x07, SMPP_PERMANENT, "ESME_RINVREGDLVFLG",    "the wish for receipts is refused"},
    {0x08, SMPP_PAUSE,     "ESME_RSYSERR",          "the message centre has trouble"},
    {0x0a, SMPP_ALARM,     "ESME_RINVSRCADR",       "the sender's number is not allowed"},
    {0x0b, SMPP_PERMANENT, "ESME_RINVDSTADR",       "the customer's number is not valid"},
    {0x0c, SMPP_PERMANENT, "ESME_RINVMSGID",        "the message centre does not know this message"},
    {0x0d, SMPP_ALARM,     "ESME_RBINDFAIL",        "the login failed"},
    {0x0e, SMPP_ALARM,     "ESME_RINVPASWD",        "the password is wrong"},
    {0x0f, SMPP_ALARM,     "ESME_RINVSYSID",        "the account's name is wrong"},
    {0x14, SMPP_RETRY,     "ESME_RMSGQFUL",         "the message centre's queue is full"},
    {0x15, SMPP_PERMANENT, "ESME_RINVSERTYP",       "the service type is refused"},
    {0x43, SMPP_PERMANENT, "ESME_RINVESMCLASS",     "the message's class is refused"},
    {0x44, SMPP_PERMANENT, "ESME_RCNTSUBDL",        "the distribution list is refused"},
    {0x45, SMPP_RETRY,     "ESME_RSUBMITFAIL",      "the message centre could not take it"},
    {0x48, SMPP_ALARM,     "ESME_RINVSRCTON",       "the type of the sender's number is refused"},
    {0x49, SMPP_ALARM,     "ESME_RINVSRCNPI",       "the plan of the sender's number is refused"},
    {0x50, SMPP_PERMANENT, "ESME_RINVDSTTON",       "the type of the customer's number is refused"},
    {0x51, SMPP_PERMANENT, "ESME_RINVDSTNPI",       "the plan of the customer's number is refused"},
    {0x53, SMPP_ALARM,     "ESME_RINVSYSTYP",       "the system type is wrong"},
    {0x54, SMPP_PERMANENT, "ESME_RINVREPFLAG",      "the replace flag is refused"},
    {0x58, SMPP_PAUSE,     "ESME_RTHROTTLED",       "too fast for this account"},
    {0x61, SMPP_PERMANENT, "ESME_RINVSCHED",        "the delivery time is refused"},
    {0x62, SMPP_PERMANENT, "ESME_RINVEXPIRY",       "the validity is refused"},
    {0x64, SMPP_RETRY,     "ESME_RX_T_APPN",        "the other side has temporary trouble"},
    {0x65, SMPP_PERMANENT, "ESME_RX_P_APPN",        "the other side refuses it for good"},
    {0x66, SMPP_PERMANENT, "ESME_RX_R_APPN",        "the other side rejects it"},
    {0x67, SMPP_RETRY,     "ESME_RQUERYFAIL",       "the message centre could not look it up"},
    {0xc0, SMPP_PERMANENT, "ESME_RINVOPTPARSTREAM", "the optional parameters cannot be read"},
    {0xc1, SMPP_PERMANENT, "ESME_ROPTPARNOTALLWD",  "an optional parameter is not allowed"},
    {0xc2, SMPP_PERMANENT, "ESME_RINVPARLEN",       "a parameter has a wrong length"},
    {0xc3, SMPP_PERMANENT, "ESME_RMISSINGOPTPARAM", "a parameter is missing"},
    {0xc4, SMPP_PERMANENT, "ESME_RINVOPTPARAMVAL",  "a parameter has a wrong value"},
    {0xfe, SMPP_RETRY,     "ESME_RDELIVERYFAILURE", "the delivery failed"},
    {0xff, SMPP_RETRY,     "ESME_RUNKNOWNERR",      "the message centre does not say why"},
};
/* clang-format on */

const struct smpp_meaning *smpp_status_meaning(uint32_t status)
{
    static const struct smpp_meaning other = {0, SMPP_PERMANENT, "",
                                              "refused with a reason of the vendor's own"};
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].status == status)
            return &meanings[i];
    return &other;
}
