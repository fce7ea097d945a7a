/* The worked examples of Amazon's S3 API reference, "Signature Calculations for the Authorization Header". */
#include "gateway/s3_sign.h"

#include "unit.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct gw_s3_request example(void)
{
    return (struct gw_s3_request){.method = "GET",
                                  .path = "/",
                                  .query = "",
                                  .payload_sha256 = EMPTY,
                                  .date = "20130524T000000Z",
                                  .region = "us-east-1",
                                  .access_key = "AKIAIOSFODNN7EXAMPLE",
                                  .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
}

static void expect(const struct gw_s3_request *rq, const char *names, const char *signature)
{
    struct sl_buf out, wanted;
    sl_buf_init(&out, 0);
    sl_buf_init(&wanted, 0);
    gw_s3_sign(rq, &out);
    sl_buf_printf(&wanted,
                  "AWS4-HMAC-SHA256 "
                  "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=%s,"
                  "Signature=%s",
                  names, signature);
    sl_buf_char(&wanted, '\0');
    assert_bytes(out, wanted.ptr);
    sl_buf_fini(&out);
    sl_buf_fini(&wanted);
}

static void test_get_object(void **state)
{
    struct gw_s3_request rq = example();
    (void)state;
    rq.path = "/test.txt";
    const struct gw_s3_header headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                           {"range", "bytes=0-9"},
                                           {"x-amz-content-sha256", EMPTY},
                                           {"x-amz-date", "20130524T000000Z"}};
    memcpy(rq.header, headers, sizeof headers);
    rq.headers = 4;
    expect(&rq, "host;range;x-amz-content-sha256;x-amz-date",
           "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_put_object(void **state)
{
    struct gw_s3_request rq = example();
    (void)state;
    rq.method = "PUT";
    rq.path = "/test%24file.text";
    rq.payload_sha256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    const struct gw_s3_header headers[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                           {"host", "examplebucket.s3.amazonaws.com"},
                                           {"x-amz-content-sha256", rq.payload_sha256},
                                           {"x-amz-date", "20130524T000000Z"},
                                           {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    memcpy(rq.header, headers, sizeof headers);
    rq.headers = 5;
    expect(&rq, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
           "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void test_get_bucket_lifecycle(void **state)
{
    struct gw_s3_request rq = example();
    (void)state;
    rq.query = "lifecycle=";
    const struct gw_s3_header headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                           {"x-amz-content-sha256", EMPTY},
                                           {"x-amz-date", "20130524T000000Z"}};
    memcpy(rq.header, headers, sizeof headers);
    rq.headers = 3;
    expect(&rq, "host;x-amz-content-sha256;x-amz-date",
           "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

static void test_dates(void **state)
{
    char date[GW_S3_DATE_BYTES];
    (void)state;
    gw_s3_date(1369353600000, date);
    assert_string_equal(date, "20130524T000000Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_object),
        cmocka_unit_test(test_put_object),
        cmocka_unit_test(test_get_bucket_lifecycle),
        cmocka_unit_test(test_dates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
